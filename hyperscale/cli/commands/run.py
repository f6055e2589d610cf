"""``hyperscale run``: generates, scores and stores chains within a budget, or plans it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli.display.console import make_console
from hyperscale.cli.options import with_options
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.run.config.schema import RunConfig

if TYPE_CHECKING:
    from hyperscale.cli.display.json_events import JsonObserver
    from hyperscale.run.observer import RunObserver


_PLAN, _OUTPUT = "Plan", "Settings file and output"  # headings in the help


@with_options(RunConfig)
def run(
    settings: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with these settings; options override it.", rich_help_panel=_OUTPUT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. [results/<named after the settings>]", rich_help_panel=_OUTPUT),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan and stop; needs no weights and no data.", rich_help_panel=_PLAN),
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="With --dry-run: GPU to plan for, e.g. h100, b200 or 48GiB. [the one found]", rich_help_panel=_PLAN
        ),
    ] = None,
    gpu_price: Annotated[
        float | None,
        typer.Option(
            help="With --dry-run: price of an hour of one GPU, to tell what the plan costs.",
            min=0,
            rich_help_panel=_PLAN,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Repeat the plan of another run exactly: its plan.json, or its folder. [planned anew]",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Write events as JSON Lines on stdout, for programs (docs/machines.md).",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """Generate, score and store chains within a budget; the same command resumes where it was stopped.

    W chains a problem, at most L new tokens each, CR compression ratio.
    """
    from hyperscale.cli.display.json_events import JsonObserver

    events = JsonObserver(sys.stdout) if as_json else None
    if events:
        events.on_stage("planning")
    else:
        make_console().print("hyperscale: planning …", style="dim")
    from hyperscale.run.config import load
    from hyperscale.run.from_python import folder_of

    try:
        run_config = load.load_config(settings, config)
        folder = folder_of(run_config, out)
        if dry_run:
            _plan(run_config, gpu, gpu_price, folder, plan, events)
        elif gpu_price is not None:
            raise ConfigError("--gpu-price goes with --dry-run, which tells what the plan would cost")
        elif gpu:
            raise ConfigError("--gpu goes with --dry-run: a run uses the GPU that is there")
        else:
            _run(run_config, folder, plan, events)
    except HyperscaleError as error:
        if events:
            events.on_failure(str(error))
        raise


def _plan(
    run_config: RunConfig,
    gpu: str | None,
    gpu_price: float | None,
    folder: Path,
    plan: Path | None,
    events: "JsonObserver | None",
) -> None:
    from hyperscale.cli.display import plan_tables
    from hyperscale.run import dry_run
    from hyperscale.utils.hub import silence_transformers

    silence_transformers()
    planned_run = dry_run.plan_dry_run(run_config, gpu, folder, plan)
    if events:
        events.on_plan(planned_run, folder)
        return
    console = make_console()
    plan_tables.print_plan(planned_run, console, gpu_price)
    plan_tables.print_memory(planned_run, console)
    plan_tables.print_roofline(planned_run, console)


def _run(run_config: RunConfig, folder: Path, plan: Path | None, events: "JsonObserver | None") -> None:
    from hyperscale.cli.display.live_run import ConsoleObserver
    from hyperscale.run.from_python import start_run

    observer: RunObserver = events or ConsoleObserver(make_console())
    start_run(run_config, folder, observer, plan)
