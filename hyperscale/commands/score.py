"""``hyperscale score``."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale import arguments, terminal


def score(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Data of a task, where they are no longer where the run had them: PATH or task=PATH."),
    ] = None,
    sandbox: Annotated[str, typer.Option(help="For programs the model wrote: auto, bwrap, unshare or none.")] = "auto",
) -> None:
    """Grade the chains of a run again from their text, with today's graders; nothing is generated."""
    from rich.progress import Progress

    from hyperscale import regrading, results

    console = terminal.console()
    files = arguments.pairs("--data", data) or {}
    for path in results.folders(folder):
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(f"grading {path}", total=None)
            done = regrading.regrade(path, lambda n, of: progress.update(bar, completed=n, total=of), sandbox, files)  # noqa: B023
        console.print(
            f"{path}: graded {done.chains:,} chains; {done.answers:,} have another answer than before, "
            f"{done.verdicts:,} another verdict; rebuilt {results.POINTS}",
            highlight=False,
            soft_wrap=True,
        )
