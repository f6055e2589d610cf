"""``hyperscale retrofit``: teaches a model DMS."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli.display.console import make_console
from hyperscale.cli.options import with_options
from hyperscale.errors import RetrofitError
from hyperscale.retrofit.parallel.launch import is_first, is_started
from hyperscale.retrofit.settings import RetrofitSettings
from hyperscale.utils.hub import silence_transformers

if TYPE_CHECKING:
    from hyperscale.planning.roofline import Gpu


@with_options(RetrofitSettings, asked_for_later=("out",))
def retrofit(
    values: dict[str, Any],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print memory, GPUs, steps, tokens and hours by each recipe, and stop."),
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="With --dry-run: GPU to plan for, e.g. h100, h200 or 48GiB. [the one found]"),
    ] = None,
    gpu_price: Annotated[
        float | None, typer.Option(help="With --dry-run: price of an hour of one GPU, to tell what it costs.", min=0)
    ] = None,
) -> None:
    """Teach a model DMS: make the checkpoints that `hyperscale run --model OUT --method dms` runs."""
    if "out" not in values and not dry_run:
        raise RetrofitError("--out is missing: pass a folder for the checkpoints, or --dry-run to plan without one")
    settings = RetrofitSettings.from_options({"out": Path("retrofit"), **values})  # of a plan nothing is written
    console = make_console()

    def report(line: str) -> None:
        console.print(line, highlight=False)

    if gpu and not dry_run:
        raise RetrofitError("--gpu names a GPU to plan for: pass --dry-run too, or --device to say where to train")
    if gpu_price is not None and not dry_run:
        raise RetrofitError("--gpu-price tells what a plan costs: pass --dry-run too")
    is_part = is_started()  # what is said once is said by the process that starts the others
    if not is_part:
        report("starting …")
    silence_transformers()
    if dry_run:
        _print_plan(settings, gpu, gpu_price)
        return
    from hyperscale.retrofit.job import run_retrofit

    if console.is_terminal and is_first():
        from hyperscale.cli.display.live_training import LiveTraining

        with LiveTraining(console) as live:
            run_retrofit(settings, report, live.show, report_seconds=3.0)
    else:
        run_retrofit(settings, report)
    if is_part:
        from hyperscale.retrofit.parallel.ranks import leave_ranks

        leave_ranks()
        return
    from hyperscale.retrofit.reporting.model_card import run_command

    crs = ",".join(f"{cr:g}" for cr in settings.crs)
    report(f"run it: {run_command(settings.model, settings.out, 'dms', crs)}")


def _print_plan(settings: RetrofitSettings, gpu: str | None, gpu_price: float | None) -> None:
    from hyperscale import models
    from hyperscale.cli.display.retrofit_plan import print_retrofit_plan
    from hyperscale.planning.retrofit_plan import plan_retrofit
    from hyperscale.planning.roofline import find_gpu

    target = find_gpu(gpu) if gpu else _find_own_gpu(settings.device)
    plans = plan_retrofit(settings, models.find(settings.model).base, target)
    print_retrofit_plan(plans, target, make_console(), settings.gpus, gpu_price)


def _find_own_gpu(device: str | None) -> "Gpu":
    """What the command itself would train on; the machine, without figures of its speed, where that is the CPU."""
    import torch

    from hyperscale.planning.roofline import Gpu, identify_gpu
    from hyperscale.retrofit.attention.fused import shared_memory
    from hyperscale.retrofit.memory_estimate import device_memory

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not device.startswith("cuda"):
        return Gpu(*device_memory(device), shared_memory=0)  # so that no kernels of a GPU are planned with
    if not torch.cuda.is_available():
        raise RetrofitError("this machine has no GPU to plan for: pass one, e.g. --gpu h200 or --gpu 48GiB")
    found = identify_gpu(*device_memory(device))
    return replace(found, shared_memory=shared_memory(torch.device(device)))
