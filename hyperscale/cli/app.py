"""The commands of ``hyperscale``; heavy packages are imported inside them, so that ``--help`` answers at once."""

from typing import Annotated

import typer

from hyperscale.cli.commands import compare, gate, lists, methods, plot, report, retrofit, run, score, show

_HELP_WIDTH = 120  # columns that a command's help takes at most

app = typer.Typer(
    help="How accurate can a reasoning model be at a given budget of KV-cache reads or memory?",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        from hyperscale import __version__

        typer.echo(f"hyperscale {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    run.run,
    show.show,
    show.runs,
    compare.compare,
    plot.plot,
    report.report,
    score.score,
    gate.gate,
    retrofit.retrofit,
    lists.models,
    methods.methods,
    lists.tasks,
    lists.budgets,
):
    app.command(context_settings={"max_content_width": _HELP_WIDTH})(command)
