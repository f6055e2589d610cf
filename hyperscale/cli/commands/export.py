"""``hyperscale export``: writes results in the formats of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli import arguments
from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.utils.printing import print_line


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")],
    to: Annotated[
        str, typer.Option(help="Formats with commas between them: lm-eval, inspect, tensorboard, wandb.")
    ] = "lm-eval",
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [export/ in the same folder]")] = None,
) -> None:
    """Write results as lm-eval's files, logs of inspect_ai, events of TensorBoard or runs of Weights & Biases."""
    from hyperscale import frames
    from hyperscale.export.write import check_formats

    formats = arguments.names("--to", to) or []
    console = make_console()
    results = frames.load(folder)  # a folder that is not there is told before a package that is missing
    check_formats(formats)
    print_notes(console, results.notes)
    results.export(formats, out, lambda path: print_line(console, f"wrote {path}"))
