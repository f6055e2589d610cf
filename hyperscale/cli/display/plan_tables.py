"""Tables about a plan: what a GPU makes of it, and how its predictions compare with what was measured."""

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hyperscale.cli.display.tables import STYLE, columns, quantity
from hyperscale.planning.roofline import Roofline, mean_entries

if TYPE_CHECKING:
    from pandas import DataFrame

    from hyperscale.planning.costs import Costs
    from hyperscale.planning.planner import Plan, Point
    from hyperscale.run.dry_run import DryRun


def roofline(run: "DryRun", console: Console) -> None:
    """Print what a GPU makes of the points at best: batch, tokens/s, seconds; nothing if its figures are unknown."""
    line = run.roofline
    if line is None:
        return
    most = run.config.batch_size
    table = Table(title=f"At best on {line.gpu.name}, {run.config.dtype}: roofline of decoding", **STYLE)
    columns(table, ("task", "method"), ("L", "W", "chains that fit", "tokens/s", "s a chain", "s a point", "bound by"))
    total = 0.0
    for shape in run.shapes:
        for arm in run.arms:
            widest = run.plan.widest_points(arm, shape.name)
            for length, point in widest.items():
                cells = _speed(line, point.chain, point.W, most)
                table.add_row(shape.name, str(arm), f"{length}", f"{point.W}", *cells)
            count = run.counts[shape.name] * len(run.config.seeds)
            chains = [length for _, length in run.plan.chains(arm, shape.name)]
            total += count * sum(line.chain_seconds(widest[length].chain, most) / most for length in chains)
        table.add_section()
    console.print(table)
    time = f"about {_duration(total)} for the whole run" if math.isfinite(total) else "a chain does not fit"
    console.print(
        f"{most} chains share the GPU (--batch-size), taking turns where fewer fit; {time}. "
        "A bound from datasheet figures, without prefill, sampling and the host.",
        highlight=False,
        soft_wrap=True,
    )


def comparison(plan: "Plan", found: "DataFrame", console: Console) -> None:
    """Print predicted against measured cost of one chain at each L, on the budget's axis, and what broke the budget.

    Args:
        plan: The plan, with its predictions.
        found: The points that were measured, with the columns of ``points.csv``.
        console: Where to.
    """
    axis = plan.budget.axis
    measured = {
        (str(row["task"]), str(row["method"]), float(row["CR"]), int(row["W"]), int(row["L"])): float(row[axis])
        for row in found.to_dict("records")
    }
    lengths = sorted({point.L for point in plan.points})
    table = Table(title=f"Predicted and measured {axis} of one chain, and measured / predicted", **STYLE)
    columns(table, ("task", "method", "predicted by"), [f"L={n}" for n in lengths])
    over: list[tuple[float, Point]] = []
    for task, arm in dict.fromkeys((point.task, point.arm) for point in plan.points):
        widest = plan.widest_points(arm, task)
        cells = []
        for n in lengths:
            point = widest.get(n)
            cost = measured.get((task, arm.method, arm.CR, point.W, n)) if point else None
            cells.append("·" if point is None or cost is None else _pair(point.chain.on(axis), cost / point.W))
        sources = "/".join(dict.fromkeys(point.source for point in widest.values()))
        table.add_row(task, str(arm), sources, *cells)
    for point in plan.points:
        cost = measured.get((point.task, point.arm.method, point.arm.CR, point.W, point.L))
        if cost is not None and plan.exceeds(point, cost):
            over.append((cost / plan.ceilings[point.task], point))
    console.print(table)
    if not plan.budget.unlimited:
        console.print(_verdict(over, len(plan.points)), highlight=False, soft_wrap=True)


def _verdict(over: "list[tuple[float, Point]]", count: int) -> str:
    if not over:
        return f"all {count} points of the plan are within the budget"
    factor, worst = max(over, key=lambda pair: pair[0])
    return (
        f"{len(over)} of {count} points of the plan cost more than the budget, the worst {factor:.2f} times: "
        f"{worst} of {worst.arm.method} on {worst.task}"
    )


def _speed(line: Roofline, chain: "Costs", width: int, most: int) -> tuple[str, ...]:
    fitting = line.max_batch(chain)
    if not fitting:
        return "none", "·", "·", "·", "memory size"
    batch, entries = min(fitting, most), mean_entries(chain)
    seconds = line.chain_seconds(chain, most)
    rate = batch / line.step_seconds(batch, entries)
    return f"{fitting:,}", quantity(rate), f"{seconds:,.1f}", f"{width * seconds:,.1f}", line.bound(batch, entries)


def _pair(predicted: float, measured: float) -> str:
    factor = f"{measured / predicted:.2f}" if predicted > 0 else "·"
    return f"{_number(predicted)} {_number(measured)} ×{factor}"


def _number(value: float) -> str:
    return "?" if math.isnan(value) else quantity(value) if value >= 10 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"
