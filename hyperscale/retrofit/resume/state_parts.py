"""The state of a training that several processes share: a file for each process, and all of one step.

Parts are written under the number of their step. Only when all processes have written theirs are older ones removed, so
that some step is whole on the disk whenever the training ends.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.retrofit.resume.state_file import STATE, read_state, save_or_warn

if TYPE_CHECKING:
    from hyperscale.retrofit.parallel.ranks import Ranks


def remove_leftover(folder: Path) -> None:
    """Remove the states of a training that is complete, which a kill has left."""
    for path in folder.glob("state*.pt"):
        if path.name == STATE or re.fullmatch(r"state-\d+-\d+of\d+\.pt", path.name):
            path.unlink(missing_ok=True)


class StateParts:
    """The file, or the files, of a training's state.

    Args:
        folder: The training's folder; one that all processes see, or each its own part of.
        ranks: The processes; one alone has `state_file.STATE`.
    """

    def __init__(self, folder: Path, ranks: "Ranks") -> None:
        self._folder, self._ranks = folder, ranks

    def write(self, state: dict[str, Any], report: Callable[[str], None]) -> bool:
        """Write this process's part; a collective.

        Returns:
            Whether all processes have: if not, the last whole state stays.
        """
        step = state["place"]["steps_done"]
        name = self._name(step)
        written = save_or_warn(self._folder, state, report, name)
        if self._ranks.count == 1:
            return written
        if all(self._ranks.gather(written)):
            for other in self._steps() - {step}:
                (self._folder / self._name(other)).unlink(missing_ok=True)
            return True
        (self._folder / name).unlink(missing_ok=True)
        return False

    def read(self) -> dict[str, Any] | None:
        """This process's part of the last state that is whole, on the CPU; None if there is none. A collective.

        Raises:
            RetrofitError: The file cannot be read.
        """
        if self._ranks.count == 1:
            return read_state(self._folder)
        whole = set.intersection(*self._ranks.gather(self._steps()))
        return read_state(self._folder, self._name(max(whole))) if whole else None

    def remove(self) -> None:
        """Remove this process's files: the training is complete."""
        for step in self._steps() if self._ranks.count > 1 else {0}:
            (self._folder / self._name(step)).unlink(missing_ok=True)

    def _name(self, step: int) -> str:
        if self._ranks.count == 1:
            return STATE
        return f"state-{step}-{self._ranks.rank}of{self._ranks.count}.pt"

    def _steps(self) -> set[int]:
        """The steps of this process's parts."""
        pattern = re.compile(rf"state-(\d+)-{self._ranks.rank}of{self._ranks.count}\.pt")
        return {int(match[1]) for path in self._folder.glob("state-*.pt") if (match := pattern.fullmatch(path.name))}
