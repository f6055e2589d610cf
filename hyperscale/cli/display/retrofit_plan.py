"""The table of ``hyperscale retrofit --dry-run``."""

from collections.abc import Sequence

from rich.console import Console

from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.planning.retrofit_plan import RetrofitPlan, first_fitting
from hyperscale.planning.roofline import GIB, Gpu
from hyperscale.retrofit.memory_estimate import THIS_MACHINE
from hyperscale.utils.quantities import format_price, format_quantity


def print_retrofit_plan(
    plans: Sequence[RetrofitPlan], gpu: Gpu, console: Console, count: int = 1, gpu_price: float | None = None
) -> None:
    """Print what each recipe takes on so many GPUs, how many it needs, and which one is taken.

    Memory is that of one GPU; hours are those on as many as the recipe needs, and so is the cost, where the price of an
    hour of one GPU is known.
    """
    numbers: tuple[str, ...] = ("memory GiB", "fits", "GPUs needed", "steps", "tokens", "hours")
    if gpu_price is not None:
        numbers = (*numbers, "cost")
    table = make_table(f"Retrofit on {_describe_gpus(gpu, count)} of {gpu.memory / GIB:,.0f} GiB", ("recipe",), numbers)
    for plan in plans:
        if plan.memory is None:
            table.add_row(plan.recipe, *[NOTHING] * len(numbers))
            continue
        hours = None if plan.hours is None or plan.gpus is None else plan.gpus * plan.hours  # of one GPU
        cost = [] if gpu_price is None else [NOTHING if hours is None else format_price(hours * gpu_price)]
        table.add_row(
            plan.recipe,
            f"{(plan.memory.weights + plan.memory.activations) / GIB:,.1f}",
            "yes" if plan.fits else "no",
            NOTHING if plan.gpus is None else str(plan.gpus),
            f"{plan.steps:,}",
            format_quantity(plan.tokens),
            NOTHING if plan.hours is None else f"{plan.hours:,.1f}",
            *cost,
        )
    print_table(table, console, ("steps", "tokens"))
    for plan in plans:
        if plan.refused:
            console.print(f"{plan.recipe} does not go with these settings: {plan.refused}", highlight=False)
    from hyperscale.retrofit.low_rank.updates import INSTALL, is_installed

    taken = first_fitting(plans)
    if taken is not None:
        console.print(f"--recipe {taken.recipe} is taken: the first that fits", highlight=False)
        if taken.recipe == "lora" and not is_installed():
            line = f"it needs peft, which is not installed here: {INSTALL}; where it is missing the next one is taken"
            console.print(line, highlight=False)
        for better in plans[: plans.index(taken)]:
            if better.fits_in_bfloat16:
                console.print(f"--recipe {better.recipe} fits with --weights bfloat16", highlight=False)
    elif not all(plan.refused for plan in plans):
        counts = [plan.gpus for plan in plans if plan.gpus]
        remedies = [f"--gpus {min(counts)}"] if counts else []
        remedies += ["--weights bfloat16"] if any(plan.fits_in_bfloat16 for plan in plans) else []
        remedies += ["a smaller --length or a larger --gpu"]
        console.print(f"none fits: pass {', '.join(remedies)}", highlight=False)


def _describe_gpus(gpu: Gpu, count: int) -> str:
    """So many of a GPU; of one that is known by its memory alone that stands behind, and the machine is no GPU."""
    if gpu.name == THIS_MACHINE:
        return gpu.name if count == 1 else f"{count} processes of {gpu.name}"
    name = "GPU" if gpu.name[0].isdigit() else gpu.name
    if count == 1:
        return f"one {name}"
    return f"{count} {name}s" if name == "GPU" else f"{count} × {name}"
