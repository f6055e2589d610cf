"""``hyperscale loglik``: how well given texts are predicted under compression."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli.display.console import make_console
from hyperscale.cli.options import with_options
from hyperscale.likelihood.settings import LikelihoodSettings
from hyperscale.utils.hub import silence_transformers
from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from hyperscale.likelihood.measurement import Watcher

_RESULTS = Path("results/loglik")


@with_options(LikelihoodSettings)
def loglik(
    values: dict[str, Any],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Texts; JSONL or Parquet with a column text; or folders.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for numbers and picture. [results/loglik/, and a name of the settings]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON (docs/machines.md).")] = False,
) -> None:
    """Score texts token by token under compression: nats a token and KL to the full cache, by method and position."""
    settings = LikelihoodSettings.from_values(values)
    folder = out or _RESULTS / _name(settings)
    from hyperscale.likelihood.files import check_folder

    check_folder(folder)  # before the work
    console = make_console(quiet=as_json)
    silence_transformers()
    from hyperscale.likelihood.measurement import measure

    with _progress(console) as watcher:
        likelihood = measure(files, settings, watcher, folder)
    written = likelihood.write(folder)
    if as_json:
        from hyperscale.cli.display import json_events

        summary = {**likelihood.summary(), "schema": json_events.SCHEMA, "folder": str(folder)}
        json_events.write_json_line(sys.stdout, summary)
        return
    from hyperscale.cli.display import likelihood_tables

    likelihood_tables.print_likelihood(likelihood, console)
    names = ", ".join(path.name for path in written)
    print_line(console, f"wrote {folder}: {names}")


def _name(settings: LikelihoodSettings) -> str:
    """Name of the folder: what was set of model, methods, ratios and length."""
    crs = ",".join(f"{cr:g}" for cr in settings.crs)
    return f"{Path(settings.model).name}__{'+'.join(settings.methods)}__cr-{crs}__{settings.length}"


@contextmanager
def _progress(console: "Console") -> "Iterator[Watcher]":
    """A bar of tokens for each method, and a line about the documents."""
    from rich.progress import Progress

    from hyperscale.likelihood.measurement import Watcher

    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("loading", total=None)

        class Bar(Watcher):
            def on_documents(self, chosen: int, found: int, short: int) -> None:
                of = "" if chosen == found else f" of {found:,}"
                left_out = f"; {short:,} texts are too short" if short else ""
                console.print(f"{chosen:,}{of} documents{left_out}", highlight=False)

            def on_unknown(self, share: float) -> None:
                lacking = (
                    f"{max(share, 0.001):.1%} of the tokens stand, all alike, for what the model's tokenizer lacks"
                )
                console.print(f"note: {lacking}: take texts that it can write", highlight=False)

            def on_stored(self, count: int) -> None:
                console.print(f"{count:,} of the methods and ratios are there already", highlight=False)

            def on_arm(self, name: str, tokens: int) -> None:
                progress.reset(bar, description=name, total=tokens or None)

            def on_tokens(self, count: int) -> None:
                progress.advance(bar, count)

        yield Bar()
