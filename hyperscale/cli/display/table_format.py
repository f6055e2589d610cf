"""The look that all tables on the console share, and how they write numbers."""

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

NOTHING = "·"  # in a cell without a value
_STYLE: dict[str, Any] = {
    "title_justify": "left",
    "title_style": "bold",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "show_edge": False,
    "padding": (0, 1, 0, 0),
}


def make_table(title: str | None, words: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """A table with columns of words on the left and columns of numbers on the right."""
    table = Table(title=title, **_STYLE)
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def format_interval(value: float, low: float, high: float) -> str:
    """An accuracy with its interval: ``96.9 [84, 99]``; alone where there is none, as for few problems."""
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} [{low:.0f}, {high:.0f}]"


def format_accuracy(value: float, error: float) -> str:
    """An accuracy with its standard error; alone where there is none, as for a single problem."""
    return f"{value:.1f}" if math.isnan(error) else f"{value:.1f} ± {error:.1f}"
