"""Tables for the console: the plan before a run, the points after it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from hyperscale.kv.formats import AUTO

if TYPE_CHECKING:
    from hyperscale.results.points import Cell
    from hyperscale.run.dry_run import DryRun
    from hyperscale.run.planned_run import PlannedRun
    from hyperscale.run.verification import Compression

#: Of every table.
STYLE: dict[str, Any] = {
    "title_justify": "left",
    "title_style": "bold",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "show_edge": False,
    "padding": (0, 1, 0, 0),
}


def quantity(value: float) -> str:
    """A cost with a binary-free unit: 950, 12.3K, 4.56M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'K' else limit):.3g}{unit}"
    return f"{value:,.0f}"


def columns(table: Table, left: Sequence[str], right: Sequence[str]) -> None:
    """Add columns of words and columns of numbers."""
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)


def plan(run: "PlannedRun", console: Console) -> None:
    """Print what is going to run: widths at each length, chains, tokens, costs and what they are predicted from."""
    axis = run.plan.budget.axis
    lengths = sorted({point.L for point in run.plan.points}) or [0]
    table = Table(title="Plan: widths W that fit at each maximum length L", **STYLE)
    columns(table, ("task", "method"), (*(f"L={n}" for n in lengths), "chains", "tokens ≤", "tokens ≈"))
    columns(table, (), (f"dearest {axis}",))
    columns(table, ("predicted by",), ())
    total, expected = [0, 0], 0.0
    for shape in run.shapes:
        count = run.counts[shape.name] * len(run.config.seeds)
        for arm in run.arms:
            points = run.plan.points_of(arm, shape.name)
            widest = {n: max((p.W for p in points if n == p.L), default=0) for n in lengths}
            chains = len(run.plan.chains(arm, shape.name)) * count
            tokens = run.plan.max_tokens(arm, {shape.name: count})
            likely = run.plan.expected_tokens(arm, {shape.name: count})
            total, expected = [total[0] + chains, total[1] + tokens], expected + likely
            cells = [f"1–{w}" if w > 1 else "1" if w else "·" for w in widest.values()]
            cells += [f"{chains:,}", quantity(tokens), quantity(likely)]
            cost = max((p.costs.on(axis) for p in points), default=math.nan)
            cells.append("·" if math.isnan(cost) else quantity(cost))
            table.add_row(shape.name, str(arm), *cells, "/".join(dict.fromkeys(p.source for p in points)))
        table.add_section()
    console.print(table)
    for task in run.tasks:
        shape = task.shape
        ceiling = run.plan.ceilings[shape.name]
        base = "the budget"
        if run.plan.budget.relative:
            base = f"{run.config.budget.text} the base point 1-{shape.base_length}-1"
        limit = "no ceiling" if math.isinf(ceiling) else f"{base} is {quantity(ceiling)} {axis}"
        about = "" if task.measured else "about "
        problems = f"{task.count} problems, prompts of {about}{shape.prompt_tokens} tokens"
        console.print(f"{shape.name}: {problems}; {limit}", highlight=False, soft_wrap=True)
    if run.plan.n_dominated:
        longer = "a longer L is predicted to cost no more, and cutting its chains gives them all the same"
        console.print(f"{run.plan.n_dominated} points left out: {longer}", highlight=False, soft_wrap=True)
    tokens_in_all = f"at most {quantity(total[1])} tokens, about {quantity(expected)} as predicted"
    console.print(f"{total[0]:,} chains to generate, {tokens_in_all}", highlight=False, soft_wrap=True)
    long, short = run.plan.saving(run.counts)
    grid = f"{long:.1f}× the tokens if every chain runs to L, {short:.1f}× if all end early"
    console.print(f"One pass for all points: each by itself would generate {grid}", highlight=False, soft_wrap=True)


def memory(run: "DryRun", console: Console) -> None:
    """Print what the weights and the cache of each method take at most, and whether a GPU holds them."""
    gpu = run.gpu
    kept = run.config.dtype if run.config.kv_dtype == AUTO else f"{run.config.dtype}, cache in {run.config.kv_dtype}"
    table = Table(title=f"Peak memory in GiB, {kept}, weights and cache", **STYLE)
    columns(
        table, ("method",), ("longest L", "one chain", "widest point", "with weights", *([gpu.name] if gpu else []))
    )
    for need in run.needs:
        room = "" if gpu is None else f"{need.fitting} chains at a time" if need.fitting else "does not fit"
        total = "?" if run.weights is None else f"{(run.weights + need.widest) / 2**30:.2f}"
        cells = (f"{need.length}", f"{need.chain / 2**30:.2f}", f"{need.widest / 2**30:.2f}", total)
        table.add_row(str(need.arm), *cells, *([room] if gpu else []))
    console.print(table)
    for note in run.notes:
        console.print(note, highlight=False, soft_wrap=True)


def compression(found: "Sequence[Compression]", console: Console) -> None:
    """Print each method's realised compression beside the nominal one, and how much of its budget it used."""
    table = Table(title="Compression", **STYLE)
    columns(table, ("method",), ("nominal CR", "realised CR", "of the peak", "most of its budget"))
    for each in found:
        used = "no number" if each.used is None else f"{each.used:.0%}"
        table.add_row(str(each.arm), f"{each.arm.CR:g}", f"{each.realised:.2f}", f"{each.peak:.2f}", used)
    console.print(table)
    for each in found:
        if each.weak:
            share = f"{each.realised / each.arm.CR:.0%} of the nominal {each.arm.CR:g}"
            console.print(f"{each.arm} realised {each.realised:.2f}, {share}: its costs are not those of its ratio")


def accuracy(value: float, error: float) -> str:
    """An accuracy with its standard error; alone where there is none, as for a single problem."""
    return f"{value:.1f}" if math.isnan(error) else f"{value:.1f} ± {error:.1f}"


def points(measured: "Sequence[Cell]", axis: str, console: Console) -> None:
    """Print the points on each method's frontier on one cost axis."""
    from hyperscale.analysis.frontier import frontier_points

    table = Table(title=f"Frontiers by {axis} (every point is in points.csv)", **STYLE)
    columns(table, ("task", "method", "W-L-CR"), ("realised CR", "accuracy %", "kv_reads", "peak_kv", "tokens"))
    frontiers = frontier_points(measured, axis)
    for task in dict.fromkeys(point.arm.task for point in measured):
        for point in frontiers:
            if point.arm.task != task:
                continue
            row = point.row()
            table.add_row(
                task,
                point.arm.method,
                point.label,
                f"{point.realised_cr:.2f}",
                accuracy(row["accuracy"], row["accuracy_se"]),
                *(quantity(row[name]) for name in ("kv_reads", "peak_kv", "tokens")),
            )
        table.add_section()
    console.print(table)
