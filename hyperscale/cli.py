"""The command line: options in, one line for every error out. Heavy imports wait until a command needs them."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hyperscale import arguments
from hyperscale.errors import ConfigError, HyperscaleError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="How accurate can a reasoning model be at a given budget of KV-cache reads or memory?",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
FAILED = 2
PIPE_WIDTH = 140


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


@app.command()
def run(
    model: Annotated[
        str | None, typer.Option(help="Name (`hyperscale models`), local folder or hub id. [mini]")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Methods, e.g. vanilla,dms: one folder for all. [vanilla]")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Ceiling per problem: 8x, kv_reads=2^28, peak_kv=32Ki, all, or a grid's name. [8x]"),
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="Cost that 8x counts: kv_reads, peak_kv, peak_bytes, tokens.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, e.g. mini_aime,mini_lcb. [the model's]")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="JSONL or Parquet file, or a folder of them, for a task's data set: PATH, or task=PATH; repeatable."
        ),
    ] = None,
    task_param: Annotated[
        list[str] | None,
        typer.Option(help="Choice of a task's problems, e.g. livecodebench.end_date=2024-12-31; repeatable."),
    ] = None,
    length: Annotated[str | None, typer.Option(help="Values of L in tokens, e.g. 8192,16384. [the task's]")] = None,
    cr: Annotated[
        str | None, typer.Option(help="Compression ratios, e.g. 4,8. [all that the model's DMS checkpoints offer]")
    ] = None,
    grid: Annotated[str | None, typer.Option(help="Grid of candidates (`hyperscale budgets`). [the model's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N problems of each task.")] = None,
    seed: Annotated[str | None, typer.Option(help="Seeds of the sampling noise, e.g. 0,1,2. [0]")] = None,
    temperature: Annotated[float | None, typer.Option(help="Softmax temperature. [the model's]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus mass. [the model's]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16. [auto]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Chains that decode together; changes no result. [the model's]")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(help="For programs the model writes: auto, bwrap, unshare or none. [auto]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with these settings; options override it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [results/<named after the settings>]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and stop; needs no weights and no data.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="With --dry-run: GPU to plan for, e.g. H100 or 48GiB. [the one found]")
    ] = None,
) -> None:
    """Generate, score and store chains within a budget; the same command resumes where it was stopped."""
    console = _console()
    console.print("hyperscale: planning …", style="dim")
    options = {
        "model": model,
        "methods": arguments.names("--method", method),
        "budget": budget,
        "axis": axis,
        "tasks": arguments.names("--task", task),
        "data": arguments.pairs("--data", data),
        "task_params": arguments.nested("--task-param", task_param),
        "lengths": arguments.numbers("--length", length, int),
        "crs": arguments.numbers("--cr", cr, float),
        "grid": grid,
        "limit": limit,
        "seeds": arguments.numbers("--seed", seed, int),
        "temperature": temperature,
        "top_p": top_p,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "sandbox": sandbox,
    }
    from hyperscale import config as configs

    asked = configs.make(
        (configs.read(config) if config else {}) | {name: value for name, value in options.items() if value is not None}
    )
    from hyperscale import tables

    _hush()
    if dry_run:
        from hyperscale import forecast

        expected = forecast.make(asked, gpu)
        tables.plan(expected, console)
        tables.memory(expected, console)
        return
    if gpu:
        raise ConfigError("--gpu goes with --dry-run: a run uses the GPU that is there")
    from hyperscale import orchestrator, preparation
    from hyperscale.display import Display

    prepared = preparation.prepare(asked, lambda step: console.print(f"{step} …", style="dim", highlight=False))
    tables.plan(prepared, console)

    folder = out or Path("results") / asked.folder_name()
    display = Display(console)
    try:
        orchestrator.execute(prepared, folder, display)
    finally:
        display.close()
    console.print(f"results in {folder}; pictures: hyperscale plot {folder}", highlight=False, soft_wrap=True)


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures. [the same folder]")] = None,
) -> None:
    """Draw accuracy against KV reads and against peak KV (PNG, SVG, CSV) and print the margins over vanilla."""
    from hyperscale import plot as plots
    from hyperscale import results, tables

    console = _console()
    runs = results.read(folder)
    for path in plots.draw(folder, out or folder):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    tables.margins([sample for run in runs for sample in run.samples], console)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")],
    sandbox: Annotated[str, typer.Option(help="For programs the model wrote: auto, bwrap, unshare or none.")] = "auto",
) -> None:
    """Grade the chains of a run again from their text, with today's graders; nothing is generated."""
    from rich.progress import Progress

    from hyperscale import regrading, results

    console = _console()
    for path in results.folders(folder):
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(f"grading {path}", total=None)
            done = regrading.regrade(path, lambda n, of: progress.update(bar, completed=n, total=of), sandbox)  # noqa: B023
        console.print(
            f"{path}: graded {done.chains:,} chains; {done.answers:,} have another answer than before, "
            f"{done.verdicts:,} another verdict; rebuilt {results.POINTS}",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def models() -> None:
    """List the models known by name."""
    from hyperscale import models as registry

    _list(registry.available())


@app.command()
def methods() -> None:
    """List the KV-compression methods."""
    from hyperscale import methods as registry

    _list(registry.available())


@app.command()
def tasks() -> None:
    """List the tasks."""
    from hyperscale import tasks as registry

    _list(registry.available())


@app.command()
def budgets() -> None:
    """List the named grids and how budgets are written."""
    from hyperscale import budget

    _list(budget.available())
    typer.echo(
        "or a ceiling per problem: 8x (base points), kv_reads=2^28, peak_kv=32Ki, peak_bytes=8GiB, tokens=1M, all"
    )


def _hush() -> None:
    """Keep transformers' own bars and notes out of the display; errors still come through as exceptions."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _console() -> "Console":
    from rich.console import Console

    console = Console(markup=False)  # a path may hold what looks like markup
    return console if console.is_terminal else Console(width=PIPE_WIDTH, markup=False)


def _list(entries: dict[str, str]) -> None:
    width = max(map(len, entries), default=0)
    for name, line in entries.items():
        typer.echo(f"{name:<{width}}  {line}")


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
        _fail("interrupted: finished chains are kept; the same command resumes")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser of the options raises has it
            raise
        _fail(f"error: {error.format_message()} (see --help)")
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
