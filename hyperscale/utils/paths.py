"""Finds the data files that ship with the package, and the paths that users write."""

from pathlib import Path


def data_dir(kind: str) -> Path:
    """Folder of the shipped ``tasks`` or ``budgets``: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside_package = package / "_data" / kind
    return inside_package if inside_package.is_dir() else package.parent / kind


def expand_home(path: Path | str) -> Path:
    """A path with its leading ``~`` expanded; as it is where there is no such user, so that it is simply not found."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: Path | str) -> bool:
    """Whether a path exists; a text that can be none, as it is too long, does not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
