"""What went wrong while engines worked side by side: engines that were lost, problems that were given up.

``faults.jsonl`` in a run's folder has a line for each. The chains of a lost engine were generated anew; those of a
problem that was given up are missing, until the run's command is given again.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hyperscale.errors import ResultsError
from hyperscale.utils.files import complete_length, write_atomic

FILE = "faults.jsonl"


@dataclass(frozen=True)
class Fault:
    """An engine that was lost, or a problem that was given up.

    Attributes:
        reason: What happened, in words.
        place: Name of the machine; empty if it is not known.
        chains: How many chains went back to the queue, of a lost engine, or are given up.
        problem: The problem that was given up, named as in the requests, or by its task's name for it where ``task`` is
            given; None for a lost engine.
        arm: The method at its CR that was generated, as `Arm` writes it; empty where that is not known.
        task: Task of the problem.
        seed: The seed of the chains.
    """

    reason: str
    place: str = ""
    chains: int = 0
    problem: str | None = None
    arm: str = ""
    task: str | None = None
    seed: int = 0

    def __str__(self) -> str:
        where = f" on {self.place}" if self.place else ""
        if self.problem is not None:
            return f"{self.problem} was given up: {self.reason}{where}"
        return f"an engine was lost{where} ({self.reason}): {self.chains} chains go back to the queue"


def read_faults(folder: Path) -> list[Fault]:
    """The faults of a run, in the order they happened; none in folders of older versions.

    Raises:
        ResultsError: The file is corrupt.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    text = path.read_bytes()[: complete_length(path)].decode("utf-8", "replace")
    try:
        return [Fault(**json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path} is corrupt ({error}): remove it; chains and points do not need it") from None


def append_faults(folder: Path, faults: Iterable[Fault]) -> None:
    """Add faults to a run's file.

    Raises:
        ResultsError: The disk is full or fails.
    """
    _write(folder, [*read_faults(folder), *faults])


def forget_given_up(folder: Path) -> None:
    """Drop the problems that were given up: they are tried again.

    Raises:
        ResultsError: The disk is full or fails, or the file is corrupt.
    """
    faults = read_faults(folder)
    kept = [fault for fault in faults if fault.problem is None]
    if len(kept) < len(faults):
        _write(folder, kept)


def given_up(faults: Iterable[Fault]) -> dict[tuple[str, str], set[str]]:
    """The problems that were given up, by arm and task."""
    problems: dict[tuple[str, str], set[str]] = {}
    for fault in faults:
        if fault.task is not None and fault.problem is not None:
            problems.setdefault((fault.arm, fault.task), set()).add(fault.problem)
    return problems


def fault_notes(name: str, faults: Sequence[Fault]) -> list[str]:
    """What is to be said of a run's faults, a sentence each.

    Args:
        name: The run's.
        faults: Its faults.
    """
    notes = []
    lost = [fault for fault in faults if fault.problem is None]
    if lost:
        reasons = ", ".join(dict.fromkeys(fault.reason for fault in lost))
        noun = "engine was" if len(lost) == 1 else "engines were"
        chains = sum(fault.chains for fault in lost)
        notes.append(f"{len(lost)} {noun} lost while {name} ran ({reasons}); {chains} chains were generated anew")
    for (arm, task), problems in given_up(faults).items():
        some = ", ".join(sorted(problems)[:3]) + (", …" if len(problems) > 3 else "")
        noun = "problem" if len(problems) == 1 else "problems"
        notes.append(
            f"{name} lacks {len(problems)} {noun} of {task} with {arm} ({some}), given up because engines were lost "
            "with them: its points are of the others; the run's command tries them again"
        )
    return notes


def _write(folder: Path, faults: Iterable[Fault]) -> None:
    lines = "".join(json.dumps(asdict(fault)) + "\n" for fault in faults)
    try:
        write_atomic(folder / FILE, lines)
    except OSError as error:
        raise ResultsError(
            f"cannot write {folder / FILE} ({error.strerror}): make room and run the same command again"
        ) from None
