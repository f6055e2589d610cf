"""Reads a run's folder: its description and its chains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperscale.errors import ResultsError
from hyperscale.executors.faults import Fault, fault_notes, given_up, read_faults
from hyperscale.results.manifest import RUN_FILE, SAMPLES, read_info
from hyperscale.results.sample_file import read_samples
from hyperscale.results.samples import Sample

if TYPE_CHECKING:
    from hyperscale.results.group_means import GroupMean
    from hyperscale.results.points import MeasuredPoint


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        folder: The run folder.
        info: Contents of ``run.json``.
        samples: Every finished chain, in the order they finished.
        notes: What was left out of them, and what went wrong, a sentence each.
        faults: Engines that were lost, and problems that were given up.
    """

    folder: Path
    info: Mapping[str, Any]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name now: chains from before and after a folder was renamed are one run's."""
        return run_name(self.folder)

    @property
    def vote(self) -> str | None:
        """Name of the strategy that was chosen for the run; None for each task's own."""
        vote: str | None = self.info.get("vote")
        return vote

    @property
    def widths(self) -> tuple[int, ...]:
        """The values of W that the run was asked for; none in folders of older versions."""
        return tuple(self.info.get("widths") or ())

    def points(self, strategy_of_task: Mapping[str, str] | None = None) -> "list[MeasuredPoint]":
        """The run's points; ``strategy_of_task`` and errors as in `hyperscale.results.points.make_points`."""
        from hyperscale.results.points import make_points

        return make_points(
            self.samples,
            run=self.name,
            vote=self.vote,
            widths=self.widths,
            strategy_of_task=strategy_of_task,
            given_up=given_up(self.faults),
        )

    def group_means(self, points: "Iterable[MeasuredPoint]") -> "list[GroupMean]":
        """The means of the groups that the run's tasks were named by, of its points."""
        from hyperscale.results.group_means import group_means

        return group_means(points, self.info.get("task_groups") or {})


class RunChain(NamedTuple):
    """A chain and the run that it is of."""

    sample: Sample
    run: Run


def read(folder: Path | str) -> list[Run]:
    """Read a run folder, or every run folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run, or a file in it is corrupt.
    """
    paths = folders(folder)
    try:
        return [_read_run(path) for path in paths]
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename} ({error.strerror}): mend its permissions") from None


def _read_run(path: Path) -> Run:
    notes: list[str] = []
    samples = list(read_samples(path / SAMPLES, notes.append))
    faults = read_faults(path)
    notes += fault_notes(run_name(path), faults)
    return Run(path, read_info(path), samples, tuple(notes), tuple(faults))


def run_name(folder: Path) -> str:
    """The name of a run in a folder: of a link its own, as the folders that several links lead to may share a name."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def folders(folder: Path | str) -> list[Path]:
    """A run's folder, or every run's folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"no folder {folder}: pass the folder of a run, or one that holds runs")
    paths = [folder] if (folder / RUN_FILE).is_file() else sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))
    if not paths:
        raise ResultsError(
            f"{folder} holds no run (no {RUN_FILE} in it or one folder down): make one with `hyperscale run`"
        )
    return paths
