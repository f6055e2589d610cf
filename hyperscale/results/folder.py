"""A run's folder, read whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ResultsError
from hyperscale.results.manifest import RUN, SAMPLES, read_info

if TYPE_CHECKING:
    pass
from hyperscale.results.samples import iterate


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        folder: The run folder.
        info: Contents of ``run.json``.
        samples: Every finished chain, in the order they finished.
    """

    folder: Path
    info: dict[str, Any]
    samples: list[dict[str, Any]]


def read(folder: Path | str) -> list[Run]:
    """Read a run folder, or every run folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run, or a file in it is corrupt.
    """
    found = folders(folder)
    try:
        return [Run(path, read_info(path), list(iterate(path / SAMPLES))) for path in found]
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename} ({error.strerror}): mend its permissions") from None


def folders(folder: Path | str) -> list[Path]:
    """A run's folder, or every run's folder directly inside a folder.

    Raises:
        ResultsError: The folder is missing or holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"no folder {folder}: pass the folder of a run, or one that holds runs")
    found = [folder] if (folder / RUN).is_file() else sorted(p.parent for p in folder.glob(f"*/{RUN}"))
    if not found:
        raise ResultsError(f"{folder} holds no run (no {RUN} in it or one folder down): make one with `hyperscale run`")
    return found
