"""Finds the data files that ship with the package."""

from pathlib import Path


def data_dir(kind: str) -> Path:
    """Folder of the shipped ``tasks`` or ``budgets``: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside_package = package / "_data" / kind
    return inside_package if inside_package.is_dir() else package.parent / kind
