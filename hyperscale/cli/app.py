"""The commands of ``hyperscale``; heavy packages are imported inside them, so that ``--help`` answers at once."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hyperscale.cli.commands import (
    compare,
    export,
    gate,
    lists,
    loglik,
    methods,
    models,
    plot,
    report,
    retrofit,
    run,
    score,
    show,
    tasks,
)

_HELP_WIDTH = 120  # columns that a command's help takes at most
_OPTIONS, _ARGUMENTS = "Options", "Arguments"  # headings of what names none


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under headings, in plain text: Typer has them for rich text alone."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, group by group, in the order in which groups come first; ``--help`` is the last."""
        groups: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = _ARGUMENTS if parameter.param_type_name == "argument" else _OPTIONS
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


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


_COMMANDS: dict[
    Callable[..., None], str
] = {  # with what the list of commands says of them, short enough for 80 columns
    run.run: "Generate, score and store chains within a budget, or plan it.",
    show.show: "Show how far a run is, the answer in words, and its points.",
    show.runs: "List the runs in a folder.",
    compare.compare: "Compare two runs problem by problem, with intervals.",
    plot.plot: "Say what results show, draw accuracy against cost.",
    report.report: "Write one HTML file, to be opened offline.",
    export.export: "Write files for lm-eval, inspect_ai, TensorBoard, W&B.",
    score.score: "Grade finished chains again, or let them vote otherwise.",
    gate.gate: "Fail (exit 1) if an accuracy fell or a cost rose.",
    loglik.loglik: "Score texts under compression: nats a token, KL, by position.",
    retrofit.retrofit: "Teach a model DMS.",
    models.models: "List the models known by name, or show one.",
    methods.methods: "List the KV-compression methods, or show one.",
    tasks.tasks: "List the tasks, or check one of your own.",
    lists.budgets: "List the named grids and how budgets are written.",
}
for command, summary in _COMMANDS.items():
    settings = {"max_content_width": _HELP_WIDTH}
    app.command(cls=GroupedCommand, short_help=summary, context_settings=settings)(command)
