"""The table of ``hyperscale retrofit --dry-run``."""

from collections.abc import Sequence

from rich.console import Console

from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.planning.retrofit_plan import RetrofitPlan, first_fitting
from hyperscale.planning.roofline import GIB, Gpu
from hyperscale.utils.quantities import format_quantity


def print_retrofit_plan(plans: Sequence[RetrofitPlan], gpu: Gpu, console: Console) -> None:
    """Print what each recipe takes on a GPU, and which one is taken."""
    numbers = ("memory GiB", "fits", "steps", "tokens", "hours")
    table = make_table(f"Retrofit on one {gpu.name} of {gpu.memory / GIB:,.0f} GiB", ("recipe",), numbers)
    for plan in plans:
        if plan.memory is None:
            table.add_row(plan.recipe, *[NOTHING] * len(numbers))
            continue
        table.add_row(
            plan.recipe,
            f"{(plan.memory.weights + plan.memory.activations) / GIB:,.1f}",
            "yes" if plan.fits else "no",
            f"{plan.steps:,}",
            format_quantity(plan.tokens),
            NOTHING if plan.hours is None else f"{plan.hours:,.1f}",
        )
    print_table(table, console, ("steps", "tokens"))
    for plan in plans:
        if plan.refused:
            console.print(f"{plan.recipe} does not go with these settings: {plan.refused}", highlight=False)
    taken = first_fitting(plans)
    if taken is not None:
        console.print(f"--recipe {taken.recipe} is taken: the first that fits", highlight=False)
    else:
        console.print("none fits: pass a smaller --length, --weights bfloat16 or a larger --gpu", highlight=False)
