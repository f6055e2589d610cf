"""Reads published results to show beside a run's: CSV files in results/reference/, described in its README."""

import csv
from dataclasses import dataclass
from pathlib import Path

from hyperscale.errors import ResultsError
from hyperscale.utils.paths import data_dir

FOLDER = "results/reference"
MARGINS, ACCURACY = "margins.csv", "accuracy.csv"
_MARGIN = ("task", "model", "a", "b", "axis")
_POINT = ("task", "model", "method", "W", "L", "CR")


@dataclass(frozen=True)
class PublishedMargin:
    """A published margin of method ``a`` over method ``b``, in points of accuracy."""

    task: str
    model: str
    a: str
    b: str
    axis: str
    value: float
    version: str


@dataclass(frozen=True)
class PublishedAccuracy:
    """A published accuracy in percent; W and L are 0 where they do not apply."""

    task: str
    model: str
    method: str
    W: int
    L: int
    CR: float
    accuracy: float
    version: str


@dataclass(frozen=True)
class Reference:
    """The tables of one publication; a value that a later version replaced is left out.

    Attributes:
        name: Name of its folder.
        margins: In the files' order.
        accuracies: In the files' order.
    """

    name: str
    margins: tuple[PublishedMargin, ...]
    accuracies: tuple[PublishedAccuracy, ...]

    def margin(self, task: str, a: str, b: str, axis: str) -> dict[str, float]:
        """Published values of a margin by model; a margin the other way round counts with its sign turned."""
        values = {}
        for margin in self.margins:
            if (margin.task, margin.axis) == (task, axis) and {margin.a, margin.b} == {a, b}:
                values[margin.model] = margin.value if margin.a == a else -margin.value
        return values

    def accuracy(self, task: str) -> list[PublishedAccuracy]:
        """The accuracies on a task."""
        return [point for point in self.accuracies if point.task == task]


def available() -> list[str]:
    """Names of the references that ship with the package."""
    folder = data_dir(FOLDER)
    return sorted(path.name for path in folder.iterdir() if (path / MARGINS).is_file()) if folder.is_dir() else []


def load(name: str) -> Reference:
    """A reference by name, or the folder of one.

    Raises:
        ResultsError: No such reference, or a file of it is malformed.
    """
    folder = data_dir(FOLDER) / name if name in available() else Path(name)
    if not (folder / MARGINS).is_file() or not (folder / ACCURACY).is_file():
        names = ", ".join(available()) or "none"
        raise ResultsError(
            f"no reference {name!r}: known ones: {names}; or pass a folder that holds {MARGINS} and {ACCURACY}"
        )
    margins: dict[tuple[str, ...], PublishedMargin] = {}
    for row in _rows(folder / MARGINS, (*_MARGIN, "margin", "version")):
        task, model, a, b, axis = (row[column] for column in _MARGIN)
        margin = PublishedMargin(task, model, a, b, axis, _number(row, "margin", folder / MARGINS), row["version"])
        # Rows of later versions come first, so the first value of a margin or point is the one to keep.
        margins.setdefault((task, model, a, b, axis), margin)
    accuracies: dict[tuple[str, ...], PublishedAccuracy] = {}
    for row in _rows(folder / ACCURACY, (*_POINT, "accuracy", "version")):
        W, L, CR, value = (_number(row, column, folder / ACCURACY) for column in ("W", "L", "CR", "accuracy"))
        task, model, method = row["task"], row["model"], row["method"]
        point = PublishedAccuracy(task, model, method, int(W), int(L), CR, value, row["version"])
        accuracies.setdefault(tuple(row[column] for column in _POINT), point)
    return Reference(folder.name, tuple(margins.values()), tuple(accuracies.values()))


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows in the file's order, those of later versions first."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is unreadable ({error}): restore it") from None
    for number, row in enumerate(rows, start=2):
        if missing := [column for column in columns if row.get(column) is None]:
            raise ResultsError(f"{path} line {number} lacks {', '.join(missing)}: restore the file")
    return sorted(rows, key=lambda row: row["version"], reverse=True)


def _number(row: dict[str, str], column: str, path: Path) -> float:
    """A number; W and L may be empty, which is 0."""
    text = row[column] or ("0" if column in ("W", "L") else "")
    try:
        return float(text)
    except ValueError:
        raise ResultsError(f"{path}: {column} {text!r} is not a number: restore the file") from None
