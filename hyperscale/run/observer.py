"""What a run tells of itself while it goes on; whoever shows it, to people or to machines, is an `Observer`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress
    from hyperscale.methods.arm import Arm
    from hyperscale.results.points import MeasuredPoint
    from hyperscale.results.samples import Sample
    from hyperscale.run.prepare import PreparedRun, Problem
    from hyperscale.run.verification import Compression


@dataclass(frozen=True)
class Load:
    """What an arm has to do in all: chains, the most tokens they can have, and how many chains decode together."""

    chains: int
    most_tokens: int
    batch_size: int


class Observer:
    """Told what happens in a run; the base class keeps silent.

    Attributes:
        watching: Whether it wants to see the chains that are generated before the run, the pilot's and those that are
            shown, token by token.
    """

    watching = False

    def stage(self, text: str) -> None:
        """A step that takes a moment has begun."""

    def pilot(self, arm: "Arm", done: int, total: int) -> None:
        """So many chains of an arm's pilot are on the disk."""

    def chain_progress(self, arm: "Arm", problem: "Problem", progress: "ChainProgress") -> None:
        """A chain that is generated before the run has one more token; only told if ``watching``."""

    def shown(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """A chain was generated to be shown before the run."""

    def planned(self, run: "PreparedRun", folder: Path) -> None:
        """The plan is made and kept."""

    def opened(self, folder: Path, finished: int) -> None:
        """The store is open and holds so many finished chains."""

    def note(self, text: str) -> None:
        """Something to know about the costs of a method."""

    def arm_started(self, arm: "Arm", samples: "Sequence[Sample]", load: Load) -> None:
        """An arm starts, with the chains it already has."""

    def chain(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """A chain is on the disk."""

    def arm_finished(self, arm: "Arm") -> None:
        """Every chain of an arm is on the disk."""

    def finished(
        self,
        run: "PreparedRun",
        folder: Path,
        points: "Sequence[MeasuredPoint]",
        compression: "Sequence[Compression]",
    ) -> None:
        """The points are written; ``compression`` is what became of each arm's ratio, of all the run's chains."""

    def close(self) -> None:
        """Nothing more will come, as all is done or something failed."""
