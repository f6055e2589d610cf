"""``hyperscale report``: writes results as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli.arguments import check_output
from hyperscale.cli.display.console import make_console, print_notes


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="The HTML file. [report.html in the folder]")] = None,
    text_mib: Annotated[
        float, typer.Option("--text-mib", min=0, max=4096, help="Room for the chains' texts in the file, in MiB.")
    ] = 16,
) -> None:
    """Write one HTML file, to be opened offline: frontiers, margins, points, and every chain with its text."""
    check_output("--out", out)
    from hyperscale import report as reports

    console = make_console()
    path = reports.write_report(
        folder,
        out,
        text_mib,
        lambda step: console.print(f"{step} …", style="dim", highlight=False),
        lambda note: print_notes(console, [note]),
    )
    console.print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)", highlight=False, soft_wrap=True)
