"""The command line ``hyperscale``: its commands, and one line on stderr for every error that a user can cause.

Heavy packages are imported inside the commands, so that ``--help`` answers at once.
"""

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from hyperscale.cli.commands import gate, lists, methods, plot, report, retrofit, run, score
from hyperscale.errors import HyperscaleError

app = typer.Typer(
    help="How accurate can a reasoning model be at a given budget of KV-cache reads or memory?",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
FAILED = 2
_PARSER_PHRASES = {
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "must be a number",
    "Input should be": "must be",
}
_HELP_WIDTH = 120  # columns that a command's help takes at most
# What an interrupted command leaves behind; the commands that are not here only read.
_AFTER_INTERRUPT = {
    "run": "finished chains are kept; the same command resumes",
    "retrofit": "checkpoints already written are kept; a retrofit does not resume, start again with another --out",
    "score": "a run is graded again whole or not at all; the same command starts again with the first one",
}


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


def _in_our_words(message: str) -> str:
    """What the parser of options says of a value, without its validator's phrases."""
    for phrase, words in _PARSER_PHRASES.items():
        message = message.replace(phrase, words)
    return message


def _fail(message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(FAILED)


class _InterruptedError(BaseException):
    """Ctrl-C or SIGTERM. Some libraries catch KeyboardInterrupt on its way up; none knows this one."""


def _interrupt(number: int, _: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise _InterruptedError


def main() -> None:
    """Entry point: every user error is one line on stderr and exit code 2."""
    # A scheduler ends jobs with SIGTERM: it has to leave the folder as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # Threads that spin while they wait make decoding many times slower as soon as anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except HyperscaleError as error:
        _fail(f"error: {error}")
    except (_InterruptedError, KeyboardInterrupt):
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        _fail(f"interrupted: {_AFTER_INTERRUPT.get(command, 'run the command again')}")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only what the parser of options raises has it
            raise
        _fail(f"error: {_in_our_words(error.format_message())} (see --help)")
    sys.exit(code or 0)
