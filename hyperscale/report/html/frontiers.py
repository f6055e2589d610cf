"""Computes the report's numbers, points, frontiers with their bands and margins, as JSON-able data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hyperscale.analysis.curves import Curve, analyse
from hyperscale.analysis.frontier import drop_sparse_points
from hyperscale.analysis.margins import Margin
from hyperscale.analysis.sentences import write_paragraphs
from hyperscale.methods.names import rank
from hyperscale.report.html.retained import collect_shares
from hyperscale.report.plots.styles import AXES, assign_styles, series_name
from hyperscale.results.group_means import GroupMean
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.results.points import COLUMNS, MeasuredPoint, name_caches
from hyperscale.utils.quantities import format_quantity
from hyperscale.utils.sorting import natural_order

ModelMethod = tuple[str, str]


def collect_numbers(
    points: Sequence[MeasuredPoint], budget: tuple[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """Everything the page shows besides the chains.

    Args:
        points: Points of finished chains, of one run or several.
        budget: The budget that they have in common: its axis, and the ceiling of each task.

    Returns:
        ``answers`` (a heading and sentences for each model and task),
        ``axes`` (key to title), ``styles`` (frontier's name to colour and marker, as plots have them), ``columns`` and
        ``points`` (a row a point), ``panels`` (task, its problems, whether these are unlike, how W
        chains vote), ``shares`` (`retained.collect_shares`), ``series`` (a frontier on every axis for each task, model
        and method), ``margins`` (every pair of methods on every task and axis), ``enough``
        (problems that intervals need).
    """
    methods: dict[tuple[str, str], set[str]] = {}
    for point in name_caches(points):
        methods.setdefault((point.series.model, point.series.task), set()).add(point.series.method)
    # Each pair once: the reverse has the opposite sign, and the interval's ends swapped.
    pairs = {pair for group in methods.values() for pair in combinations(sorted(group, key=rank, reverse=True), 2)}
    ordered = sorted(pairs, key=lambda pair: (rank(pair[1]), rank(pair[0])))
    axis, ceilings = budget or ("kv_reads", {})
    # The answer is on the budget's axis, the first one.
    axes = [axis, *(name for name in AXES if name != axis)]
    analysis = analyse(points, axes, ordered, ceilings=ceilings)
    points = [analysis.points[i] for i in page_order(analysis.points)]
    with_model = len({model for model, _ in methods}) > 1
    names = {_key(point.series): series_name(point.series.method, point.series.model, with_model) for point in points}
    return {
        "answers": [{"heading": heading, "sentences": lines} for heading, lines in write_paragraphs(analysis.answers)],
        "axes": AXES,
        "styles": assign_styles(names.values()),
        "columns": [*COLUMNS, "series"],
        "points": [[*plain(list(point.row().values())), names[_key(point.series)]] for point in points],
        "panels": [_panel(task, points, names) for task in dict.fromkeys(point.series.task for point in points)],
        "shares": collect_shares(points, names),
        "series": list(_series(points, analysis.curves, names)),
        "margins": [_margin(margin) for margin in analysis.margins],
        "enough": MIN_PROBLEMS,
    }


def describe_group_means(means: Sequence[GroupMean]) -> list[dict[str, Any]]:
    """The means of groups of tasks in words, as ``answers`` of `collect_numbers` has paragraphs.

    Args:
        means: Of all runs of the page.

    Returns:
        A paragraph for each group, of each model and run where there are several.
    """
    paragraphs: dict[str, list[str]] = {}
    origin = [name for name in ("model", "run") if len({getattr(mean.series, name) for mean in means}) > 1]
    ordered = sorted(means, key=lambda mean: (rank(mean.series.method), mean.series, mean.L, mean.W))
    for mean in ordered:
        row, weight = mean.row(), "weighted by their problems" if mean.weight_by_size else "all weighted alike"
        accuracy = f"{row['accuracy']:.1f} %"
        if math.isfinite(row["accuracy_low"]):
            accuracy += f" ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})"
        named = "".join(f", {name} {row[name]}" for name in origin)
        paragraphs.setdefault(f"{mean.series.task}{named}, mean of {len(mean.tasks)} tasks, {weight}", []).append(
            f"{mean.series.method} {mean.label}: {accuracy} of {mean.problems:,} problems, "
            f"{format_quantity(row['kv_reads'])} KV reads a problem."
        )
    return [{"heading": heading, "sentences": lines} for heading, lines in paragraphs.items()]


def page_order(points: Sequence[MeasuredPoint]) -> list[int]:
    """The places of the points in the order in which the page has them."""
    named = name_caches(points)

    def key(i: int) -> tuple[Any, ...]:
        point = named[i]
        return natural_order(point.series.task), rank(point.series.method), point.series, point.L, point.W

    return sorted(range(len(named)), key=key)


def _panel(task: str, points: Iterable[MeasuredPoint], names: dict[ModelMethod, str]) -> dict[str, Any]:
    """A task, its problems and vote; where methods rest on unlike problems, how many each has."""
    group = [point for point in points if point.series.task == task]
    votes = ", ".join(sorted({point.vote for point in group}))
    problems: dict[str, set[str]] = {}
    for point in drop_sparse_points(group):
        problems.setdefault(names[_key(point.series)], set()).update(point.problems)
    unlike = len({frozenset(of_one) for of_one in problems.values()}) > 1
    return {
        "task": task,
        "problems": max(map(len, problems.values())),
        "vote": votes,
        "unlike": ", ".join(f"{name} {len(problems[name])}" for name in sorted(problems, key=rank)) if unlike else "",
    }


def _key(series_or_curve: Any) -> ModelMethod:
    return series_or_curve.model, series_or_curve.method


def _series(
    points: Sequence[MeasuredPoint], curves: dict[str, list[Curve]], names: dict[ModelMethod, str]
) -> Iterable[dict[str, Any]]:
    """A task's points of one model and method, and their frontier on each axis; None where every cost is zero."""
    place = {id(point): i for i, point in enumerate(points)}
    curve_of = {(axis, curve.task, *_key(curve)): curve for axis in curves for curve in curves[axis]}
    groups: dict[tuple[str, str, str], list[MeasuredPoint]] = {}
    for point in points:
        groups.setdefault((point.series.task, *_key(point.series)), []).append(point)
    for (task, model, method), group in groups.items():
        of_axis = {axis: curve_of.get((axis, task, model, method)) for axis in AXES}
        yield {
            "task": task,
            "name": names[model, method],
            "points": [place[id(point)] for point in group],
            "frontiers": {axis: curve and _frontier(curve, place) for axis, curve in of_axis.items()},
        }


def _frontier(curve: Curve, place: dict[int, int]) -> dict[str, Any]:
    """A frontier's points, and its band at every other place that plots have."""
    thin = [*range(0, len(curve.cost) - 1, 2), len(curve.cost) - 1]
    return {
        "kept": [place[id(point)] for point in curve.frontier],
        "log2": plain(np.log2(curve.cost[thin])),
        **{name: plain(getattr(curve, name)[thin]) for name in ("low", "high")},
    }


def _margin(margin: Margin) -> dict[str, Any]:
    names = ("model", "task", "axis", "a", "b", "n_problems", "linear", "linear_ci", "log2", "log2_ci", "common_costs")
    return {name: plain(getattr(margin, name)) for name in names}


def plain(value: Any) -> Any:
    """JSON's types: numbers of six digits, None for NaN and infinities."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
