"""The look that all tables on the console share, and how they write numbers."""

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_ENDLESS = 10_000  # columns
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


def print_table(table: Table, console: Console, least: Sequence[str] = ()) -> None:
    """Print a table whole: where it is wider than the console, columns are left out, never letters, and it is said.

    Where it is still too wide, its cells are folded.

    Args:
        table: From `make_table`.
        console: Where to.
        least: Columns that may be left out, the least important one first; a name that the table lacks is passed over.
    """
    dropped = []
    for name in least:
        if _fits(table, console):
            break
        column = next((column for column in table.columns if column.header == name), None)
        if column is not None:
            table.columns.remove(column)
            dropped.append(name)
    if not _fits(table, console):
        for column in table.columns:
            column.no_wrap, column.overflow = False, "fold"
    for i, column in enumerate(table.columns):
        column._index = i  # rows find their cells by it
    console.print(table)
    if dropped:
        console.print(f"(left out at {console.width} columns: {', '.join(dropped)})", style="dim", highlight=False)


def _fits(table: Table, console: Console) -> bool:
    """Whether the console has room for every cell in one line; a title is wrapped and counts for nothing."""
    return console.measure(table, options=console.options.update(width=_ENDLESS)).maximum <= console.width


def format_interval(value: float, low: float, high: float) -> str:
    """An accuracy with its interval: ``96.9 [84, 99]``; alone where there is none, as for few problems."""
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} [{low:.0f}, {high:.0f}]"


def format_accuracy(value: float, error: float) -> str:
    """An accuracy with its standard error, never ``± 0.0``; alone where there is none, as for a single problem."""
    if math.isnan(error):
        return f"{value:.1f}"
    return f"{value:.1f} ± {error:.1f}" if error >= 0.05 else f"{value:.1f} ± <0.1"
