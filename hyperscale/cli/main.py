"""The command line: options in, one line for every error out. Heavy imports wait until a command needs them."""

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
# What is left of a command that was interrupted; the others only read.
_KEPT = {
    "run": "finished chains are kept; the same command resumes",
    "retrofit": "checkpoints already written are kept; a retrofit does not resume, start again with another --out",
    "score": "a run is graded again whole or not at all; the same command starts again with the first one",
}


def _version(wanted: bool) -> None:
    if wanted:
        from hyperscale import __version__

        typer.echo(f"hyperscale {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
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
    app.command()(command)


def _fail(message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(FAILED)


class _InterruptedError(BaseException):
    """Ctrl-C or SIGTERM; no library on the way up takes it for its own, as some do with KeyboardInterrupt."""


def _interrupt(number: int, _: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise _InterruptedError


def main() -> None:
    """Entry point: every user error is one line on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # Threads that spin while they wait make decoding many times slower as soon as anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except HyperscaleError as error:
        _fail(f"error: {error}")
    except (_InterruptedError, KeyboardInterrupt):
        kept = next((_KEPT[word] for word in sys.argv[1:2] if word in _KEPT), "run the command again")
        _fail(f"interrupted: {kept}")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser of the options raises has it
            raise
        _fail(f"error: {error.format_message()} (see --help)")
    sys.exit(code or 0)
