"""Shows a run's chains as a bar on stderr, for scripts and notebooks."""

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from hyperscale.run.observer import ArmSize, RunObserver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperscale.methods.arm import Arm
    from hyperscale.results.samples import Sample
    from hyperscale.run.prepare import Problem


class ProgressBar(RunObserver):
    """A bar for each arm, of its chains; remarks stand above it."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def on_pilot(self, arm: "Arm", done: int, total: int) -> None:
        """See `RunObserver`."""
        self._show(f"pilot of {arm}", done, total)

    def on_note(self, text: str) -> None:
        """See `RunObserver`."""
        tqdm.write(f"note: {text}", file=sys.stderr)

    def on_arm_start(self, arm: "Arm", samples: "Sequence[Sample]", size: ArmSize) -> None:
        """See `RunObserver`."""
        self.close()
        self._show(str(arm), len(samples), size.chains)

    def on_chain(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """See `RunObserver`."""
        if self._bar is not None:
            self._bar.update()

    def on_arm_end(self, arm: "Arm") -> None:
        """See `RunObserver`."""
        self.close()

    def close(self) -> None:
        """See `RunObserver`."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, name: str, done: int, total: int) -> None:
        if self._bar is None or self._bar.desc != name:
            self.close()
            self._bar = tqdm(desc=name, total=total, initial=done, unit=" chains", file=sys.stderr)
        else:
            self._bar.update(done - self._bar.n)
