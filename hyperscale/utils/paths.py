"""Where the data files that ship with the package lie."""

from pathlib import Path


def data_dir(kind: str) -> Path:
    """Folder of the shipped ``tasks`` or ``budgets``: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind
