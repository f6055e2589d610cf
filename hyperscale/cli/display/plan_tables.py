"""Tables about a plan: its points, its memory, its time on a GPU, and its predictions beside what was measured."""

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.kv.formats import AUTO
from hyperscale.methods.arm import compression_label
from hyperscale.models.default_sampling import NEUTRAL
from hyperscale.planning.durations import DAY, HOUR
from hyperscale.planning.plan_file import PLAN_FILE
from hyperscale.planning.roofline import GIB, Roofline, mean_entries
from hyperscale.run.config.resolve import SET_FOR_RUN
from hyperscale.utils.quantities import format_duration, format_price, format_quantity

if TYPE_CHECKING:
    from pandas import DataFrame

    from hyperscale.planning.costs import Costs
    from hyperscale.planning.planner import Plan, PlannedPoint
    from hyperscale.run.dry_run import DryRun
    from hyperscale.run.planned_run import PlannedRun, PlannedTask

_MOST_TOGETHER = 512  # chains; decode steps of more need not be CUDA graphs in vLLM
_WORTH_SAYING = 1.2  # times as many tokens/s


def print_plan(run: "PlannedRun", console: Console, gpu_price: float | None = None) -> None:
    """Print what is going to run: widths at each length, costs and what they are predicted from, and the work.

    With the price of an hour of one GPU also what the work costs.
    """
    plan, axis = run.plan, run.plan.budget.axis
    lengths = sorted({point.L for point in plan.points}) or [0]
    numbers = (*(f"L={L}" for L in lengths), "chains", f"max. {axis}")
    table = make_table("Plan: widths W that fit at each maximum length L", ("task", "method"), numbers)
    table.add_column("predicted by", no_wrap=True)
    # One row for each arm on each task; tokens and time of each arm stand in the table below.
    for task in run.tasks:
        name = task.shape.name
        for arm in run.arms:
            points = plan.points_of(arm, name)
            widths = {L: point.W for L, point in plan.widest_points(arm, name).items()}
            cost = max((point.costs.on(axis) for point in points), default=math.nan)
            table.add_row(
                name,
                str(arm),
                *(_format_widths(widths.get(L, 0)) for L in lengths),
                f"{len(plan.chains(arm, name)) * task.count * len(run.config.seeds):,}",
                NOTHING if math.isnan(cost) else format_quantity(cost),
                "/".join(dict.fromkeys(point.source for point in points)),
            )
        table.add_section()
    print_table(table, console, ("chains", f"max. {axis}", "predicted by", *(f"L={L}" for L in lengths[:-1])))
    _print_work(run, console, gpu_price)
    lines = [_describe_task(run, task) for task in run.tasks]
    if run.repeated is not None:
        lines.append("Points and predictions are those of a plan made before: of this folder, or of --plan")
    if runs := run.earlier_runs:
        named, chains = ", ".join(each.folder for each in runs), sum(each.chains for each in runs)
        lines.append(f"Costs are predicted from {chains:,} chains of {named}, as {PLAN_FILE} records")
    if plan.n_dominated:
        noun = "point" if plan.n_dominated == 1 else "points"
        lines.append(f"{plan.n_dominated} {noun} left out: a run to a longer L costs no more and gives them too")
    lines.append(f"{_describe_passes(run)} {_describe_saving(run)}")
    lines.append(_describe_sampling(run))
    lines.append(f"Engine: {run.config.engine_choice}")
    if run.config.batch_choice:
        lines.append(f"Batch: {run.config.batch_choice}")
    if placement := run.placement.describe():
        lines.append(placement)
    if run.config.kv_dtype != AUTO:
        lines.append(_describe_cache(run))
    for line in lines:
        console.print(line, highlight=False)


def _print_work(run: "PlannedRun", console: Console, gpu_price: float | None) -> None:
    """Print chains, tokens and time of each arm, and how much that is in all."""
    plan, durations = run.plan, run.durations
    problems = {name: count * len(run.config.seeds) for name, count in run.counts.items()}
    table = make_table("Work", ("method",), ("chains", "most tokens", "expected tokens", "time"))
    table.add_column("time by", no_wrap=True)
    most = {arm: plan.max_tokens(arm, problems) for arm in run.arms}
    expected = {arm: plan.expected_tokens(arm, problems) for arm in run.arms}
    for arm, duration in durations.items():
        time, source = (format_duration(duration.seconds), duration.source) if duration else ("not known", NOTHING)
        chains = f"{run.chains_by_arm[str(arm)]:,}"
        table.add_row(str(arm), chains, format_quantity(most[arm]), format_quantity(expected[arm]), time, source)
    print_table(table, console, ("time by", "most tokens", "chains"))
    total = sum(duration.seconds for duration in durations.values() if duration)
    known = all(durations.values())
    is_bound = any(duration.is_bound for duration in durations.values() if duration)
    time = f"; {'at least' if is_bound else 'about'} {format_duration(total)}" if known else ""
    if known and gpu_price is not None:
        hours = total / HOUR * run.placement.engines * max(run.placement.resources.gpus, 1)  # of one GPU
        time += f", {format_price(hours * gpu_price)} at {gpu_price:g} an hour of one GPU"
    if known and math.isinf(total):
        time = "; a chain does not fit the GPU"
    elif not known:
        time = "; how long that takes is not known, as nothing was timed here yet"
    tokens = f"at most {format_quantity(sum(most.values()))} tokens, about {format_quantity(sum(expected.values()))}"
    chains = f"{sum(run.chains_by_arm.values()):,} chains to generate"
    console.print(f"{chains}: {tokens} as predicted{time}", highlight=False)
    if DAY < total < math.inf:
        console.print(
            f"Warning: that is more than a day of one device, {format_duration(total)}. A run can be stopped and "
            "resumed at any time; --limit N takes fewer problems, --length shorter chains, a smaller --budget fewer.",
            style="bold",
            highlight=False,
        )


def _describe_cache(run: "PlannedRun") -> str:
    """What a quantised cache is kept in, and the bytes of an entry beside those of a full one."""
    sizes = {arm.method: run.predictor.entry_bytes_of(arm) for arm in run.arms}
    own = ", ".join(f"{size:,} ({method})" for method, size in sizes.items())
    if len(set(sizes.values())) == 1:
        own = f"{run.predictor.entry_bytes_of(run.arms[0]):,}"
    return (
        f"Cache: {run.config.kv_dtype}; bytes of a (key, value) pair over all layers and heads: {own}, and "
        f"{run.base_bytes:,} in {run.config.dtype}"
    )


def _describe_sampling(run: "PlannedRun") -> str:
    """How tokens are drawn, and where each setting is from; what changes nothing is said only where somebody set it."""
    config = run.config
    by_source: dict[str, list[str]] = {}
    for name, source in config.sampling_sources.items():
        value = getattr(config, name)
        if name in ("temperature", "top_p") or value != NEUTRAL[name] or source == SET_FOR_RUN:
            by_source.setdefault(source, []).append(f"{name} {value:g}")
    return "Sampling: " + "; ".join(f"{', '.join(settings)} ({source})" for source, settings in by_source.items())


def _describe_passes(run: "PlannedRun") -> str:
    """How often a method generates: once for all its points, or once for each L where its rule depends on L."""
    per_length = list(dict.fromkeys(arm.method for arm in run.arms if not arm.length_invariant))
    if not per_length:
        return "One pass serves all points."
    verb = "runs" if len(per_length) == 1 else "run"
    names = f"{', '.join(per_length)} {verb} once per L"
    has_others = any(arm.length_invariant for arm in run.arms)
    return f"{names}; one pass serves all points of the other methods." if has_others else f"{names}."


def _describe_saving(run: "PlannedRun") -> str:
    """How many times the tokens it would take to generate every point by itself."""
    low, high = (f"{factor:.1f}" for factor in sorted(run.plan.saving(run.counts)))
    factors = low if low == high else f"{low} to {high}"
    return f"Generating every point separately would take {factors} times the tokens"


def _format_widths(widest: int) -> str:
    return f"1–{widest}" if widest > 1 else "1" if widest else NOTHING


def _describe_task(run: "PlannedRun", task: "PlannedTask") -> str:
    """A task's problems, prompts and ceiling in a line."""
    shape, budget = task.shape, run.plan.budget
    ceiling = run.plan.ceilings[shape.name]
    limit = "no ceiling"
    if not math.isinf(ceiling):
        limit = f"{format_quantity(ceiling)} {budget.axis}"
        if budget.relative:
            base_point = f"base point: 1 vanilla chain of {shape.base_length:,} tokens"
            limit = f"budget {budget.text} = {limit} ({base_point})"
        else:
            limit = f"budget {limit}"
    about = "about " if task.is_estimate else ""
    problems = f"{task.count} problem{'s' * (task.count != 1)}"
    return f"{shape.name}: {problems}, prompts of {about}{shape.prompt_tokens} tokens; {limit}"


def print_memory(run: "DryRun", console: Console) -> None:
    """Print what the weights and the cache of each method take at most, and whether a GPU holds them."""
    gpu, config = run.gpu, run.config
    types = config.dtype if config.kv_dtype == AUTO else f"{config.dtype}, cache in {config.kv_dtype}"
    numbers = ["longest L", "one chain", "widest point", "with weights"] + ([gpu.name] if gpu else [])
    table = make_table(f"Peak memory in GiB, {types}, weights and cache", ("method",), numbers)
    for need in run.needs:
        total = "?" if run.weights is None else f"{(run.weights + need.widest) / GIB:.2f}"
        cells = [f"{need.L}", f"{need.chain_bytes / GIB:.2f}", f"{need.widest / GIB:.2f}", total]
        if gpu:
            cells.append(f"{need.fitting} chains at a time" if need.fitting else "does not fit")
        table.add_row(str(need.arm), *cells)
    print_table(table, console, ("one chain", "longest L", "widest point"))
    for note in run.notes:
        console.print(note, highlight=False)


def print_roofline(run: "DryRun", console: Console) -> None:
    """Print what a GPU makes of the points at best: batch, tokens/s, seconds; nothing if its figures are unknown."""
    roofline, batch_size = run.roofline, run.config.batch_size
    if roofline is None:
        return
    table = make_table(
        f"At best on {roofline.gpu.name}, {run.config.dtype}: roofline of decoding",
        ("task", "method"),
        ("L", "W", "fit", "tokens/s", "s/chain", "s/point", "bound"),
    )
    for shape in run.shapes:
        for arm in run.arms:
            widest = run.plan.widest_points(arm, shape.name)
            for L, point in widest.items():
                cells = _format_speed(roofline, point.chain_costs, point.W, batch_size)
                table.add_row(shape.name, str(arm), f"{L}", f"{point.W}", *cells)
        table.add_section()
    print_table(table, console, ("bound", "fit", "s/point", "W"))
    console.print(
        f"{batch_size} chains share the GPU (--batch-size), in turns where fewer fit. A bound from datasheet figures, "
        "without prefill, sampling and the host.",
        highlight=False,
    )
    if hint := _describe_room(run, roofline):
        console.print(hint, highlight=False)


def _describe_room(run: "DryRun", roofline: Roofline) -> str:
    """What more chains at once would gain for the method with the most to gain; nothing if that is little."""
    batch_size = run.config.batch_size
    most_chains = max(run.chains_by_arm.values(), default=0) // len(run.config.seeds)
    if run.config.batch_choice and not run.config.names_batch_size and most_chains <= run.chains_in_flight:
        return ""  # a number that was chosen for the chains that there are
    best, hint = _WORTH_SAYING, ""
    for shape, arm in product(run.shapes, run.arms):
        for L, point in run.plan.widest_points(arm, shape.name).items():
            entries, most = mean_entries(point.chain_costs), min(roofline.max_batch(point.chain_costs), _MOST_TOGETHER)
            if most <= batch_size:
                continue
            now, then = (batch / roofline.step_seconds(batch, entries) for batch in (batch_size, most))
            if then / now >= best:
                best = then / now
                hint = (
                    f"More fit: with --batch-size {most} {arm} makes {best:.1f} times the tokens/s at L={L:,}, where a "
                    "run has that many chains (problems × W)."
                )
    return hint


def _compression(row: Mapping[Any, Any]) -> str:
    """The compression of a row of ``points.csv``, as in a point's label."""
    kv_budget = int(row.get("kv_budget") or 0)
    return compression_label(float(row["CR"]), kv_budget)


def print_predictions(plan: "Plan", rows: "DataFrame", console: Console) -> None:
    """Print predicted against measured cost of one chain at each L, on the budget's axis, and what broke the budget.

    Args:
        plan: The plan, with its predictions.
        rows: The points that were measured, with the columns of ``points.csv``.
        console: Where to.
    """
    axis = plan.budget.axis
    costs = {
        (str(row["task"]), str(row["method"]), _compression(row), int(row["W"]), int(row["L"])): float(row[axis])
        for row in rows.to_dict("records")
    }

    def measured(point: "PlannedPoint") -> float | None:
        compression = compression_label(point.arm.CR, point.arm.kv_budget)
        return costs.get((point.task, point.arm.method, compression, point.W, point.L))

    lengths = sorted({point.L for point in plan.points})
    # One chain of the widest point stands for an L: of the same arm, every W predicts the same chain.
    title = f"Predicted and measured {axis} of one chain, and measured / predicted"
    table = make_table(title, ("task", "method", "predicted by"), [f"L={L}" for L in lengths])
    for task, arm in dict.fromkeys((point.task, point.arm) for point in plan.points):
        widest = plan.widest_points(arm, task)
        cells = []
        for L in lengths:
            cost = measured(widest[L]) if L in widest else None
            cells.append(NOTHING if cost is None else _format_pair(widest[L].chain_costs.on(axis), cost / widest[L].W))
        table.add_row(task, str(arm), "/".join(dict.fromkeys(point.source for point in widest.values())), *cells)
    print_table(table, console, ("predicted by", *(f"L={L}" for L in lengths[:-1])))
    if plan.budget.unlimited:
        return
    excesses = [
        (cost / plan.ceilings[point.task], point)
        for point in plan.points
        if (cost := measured(point)) is not None and plan.exceeds(point, cost)
    ]
    console.print(_describe_excess(excesses, len(plan.points)), highlight=False)


def _describe_excess(excesses: "list[tuple[float, PlannedPoint]]", count: int) -> str:
    """How many points cost more than the budget, and which one most; cost / ceiling is given with each."""
    if not excesses:
        return f"all {count} points of the plan are within the budget"
    factor, worst = max(excesses, key=lambda pair: pair[0])
    return (
        f"{len(excesses)} of {count} points of the plan cost more than the budget, the worst {factor:.2f} times: "
        f"{worst} of {worst.arm.method} on {worst.task}"
    )


def _format_speed(roofline: Roofline, chain: "Costs", width: int, batch_size: int) -> tuple[str, ...]:
    """The cells of a point: chains that fit, tokens/s, seconds of a chain and of the point, and what limits them."""
    fitting = roofline.max_batch(chain)
    if not fitting:
        return "none", NOTHING, NOTHING, NOTHING, "memory size"
    batch, entries = min(fitting, batch_size), mean_entries(chain)
    seconds = roofline.chain_seconds(chain, batch_size)
    rate = format_quantity(batch / roofline.step_seconds(batch, entries))
    return f"{fitting:,}", rate, f"{seconds:,.1f}", f"{width * seconds:,.1f}", roofline.bound(batch, entries)


def _format_pair(predicted: float, measured: float) -> str:
    factor = f"{measured / predicted:.2f}" if predicted > 0 else NOTHING
    return f"{_format_cost(predicted)} {_format_cost(measured)} ×{factor}"


def _format_cost(value: float) -> str:
    return "?" if math.isnan(value) else format_quantity(value) if value >= 10 else f"{value:.2g}"
