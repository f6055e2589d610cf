"""``hyperscale plot``."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale import terminal


def plot(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures. [the same folder]")] = None,
) -> None:
    """Draw accuracy against KV reads and against peak KV (PNG, SVG, CSV) and print the margins over vanilla."""
    from hyperscale import plot as plots
    from hyperscale import results, tables

    console = terminal.console()
    runs = results.read(folder)
    for path in plots.draw(folder, out or folder):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    tables.margins([sample for run in runs for sample in run.samples], console)
