"""``hyperscale budgets``, and how lists with a line for each entry are printed."""

import os
import shutil
import sys
import textwrap

import typer

_NARROWEST, _ENDLESS = 40, 10_000  # columns


def budgets() -> None:
    """List the named grids and how budgets are written."""
    from hyperscale.planning import grid
    from hyperscale.planning.budget import EXAMPLES

    print_entries(grid.available())
    text = f"or a ceiling per problem, 8x being eight base points: {EXAMPLES}"
    typer.echo(textwrap.fill(text, _columns(), break_long_words=False, break_on_hyphens=False))


def print_entries(entries: dict[str, str]) -> None:
    """Print names with their lines, which stay in their column on a terminal, or where COLUMNS says how wide to be."""
    width = max(map(len, entries), default=0)
    columns = _columns()
    for name, line in entries.items():
        lines = textwrap.wrap(line, columns - width - 2, break_long_words=False, break_on_hyphens=False)
        typer.echo(f"{name:<{width}}  " + f"\n{'':<{width}}  ".join(lines))


def _columns() -> int:
    """Columns to write in; endless for a pipe, whose lines programs read."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(shutil.get_terminal_size().columns, _NARROWEST)
    return _ENDLESS
