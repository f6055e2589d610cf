"""The report's numbers: points, frontiers with their bands, and margins, as JSON-able data."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hyperscale.analysis.bootstrap import MIN_PROBLEMS
from hyperscale.analysis.curves import Curve, analyse
from hyperscale.analysis.margins import Margin
from hyperscale.report.plots.styles import AXES, rank, series_name, styles
from hyperscale.results.points import COLUMNS, Cell

Name = tuple[str, str]  # model, method


def collect(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything the page shows besides the chains.

    Args:
        samples: Lines of ``samples.jsonl``, of one run or several.

    Returns:
        ``axes`` (key to title), ``styles`` (frontier's name to colour and marker, as plots have them), ``columns`` and
        ``points`` (a row a point), ``panels`` (task, its problems, how W chains vote), ``series`` (a frontier on every
        axis for each task, model and method), ``margins`` (every pair of methods on every task and axis), ``enough``
        (problems that intervals need).
    """
    methods: dict[tuple[str, str], set[str]] = {}
    for sample in samples:
        methods.setdefault((str(sample["model"]), sample["task"]), set()).add(sample["method"])
    # Each pair once: the reverse has the opposite sign, and the interval's ends swapped.
    pairs = {pair for there in methods.values() for pair in combinations(sorted(there, key=rank, reverse=True), 2)}
    made = analyse(samples, list(AXES), sorted(pairs, key=lambda pair: (rank(pair[1]), rank(pair[0]))))
    found = sorted(made.cells, key=lambda cell: (cell.arm.task, rank(cell.arm.method), cell.arm, cell.L, cell.W))
    several = len({model for model, _ in methods}) > 1
    names = {_key(cell.arm): series_name(cell.arm.method, cell.arm.model, several) for cell in found}
    return {
        "axes": AXES,
        "styles": styles(names.values()),
        "columns": [*COLUMNS, "series"],
        "points": [[*plain(list(cell.row().values())), names[_key(cell.arm)]] for cell in found],
        "panels": [_panel(task, found) for task in dict.fromkeys(cell.arm.task for cell in found)],
        "series": list(_series(found, made.curves, names)),
        "margins": [_margin(each) for each in made.margins],
        "enough": MIN_PROBLEMS,
    }


def _panel(task: str, found: Iterable[Cell]) -> dict[str, Any]:
    part = [cell for cell in found if cell.arm.task == task]
    votes = ", ".join(sorted({cell.vote for cell in part}))
    return {"task": task, "problems": max(len(cell.problems) for cell in part), "vote": votes}


def _key(one: Any) -> Name:
    return one.model, one.method


def _series(found: Sequence[Cell], curves: dict[str, list[Curve]], names: dict[Name, str]) -> Iterable[dict[str, Any]]:
    """A task's points of one model and method, and their frontier on each axis; None where every cost is zero."""
    place = {id(cell): i for i, cell in enumerate(found)}
    drawn = {(axis, each.task, *_key(each)): each for axis in curves for each in curves[axis]}
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.arm.task, *_key(cell.arm)), []).append(cell)
    for (task, model, method), part in groups.items():
        frontiers = {axis: drawn.get((axis, task, model, method)) for axis in AXES}
        yield {
            "task": task,
            "name": names[model, method],
            "points": [place[id(cell)] for cell in part],
            "frontiers": {axis: each and _frontier(each, place) for axis, each in frontiers.items()},
        }


def _frontier(curve: Curve, place: dict[int, int]) -> dict[str, Any]:
    """A frontier's points, and its band at every other place that plots have."""
    thin = [*range(0, len(curve.cost) - 1, 2), len(curve.cost) - 1]
    return {
        "kept": [place[id(cell)] for cell in curve.frontier],
        "log2": plain(np.log2(curve.cost[thin])),
        **{name: plain(getattr(curve, name)[thin]) for name in ("low", "high")},
    }


def _margin(each: Margin) -> dict[str, Any]:
    names = ("model", "task", "axis", "a", "b", "n_problems", "linear", "linear_ci", "log2", "log2_ci", "interval")
    return {name: plain(getattr(each, name)) for name in names}


def plain(value: Any) -> Any:
    """JSON's types, six digits, and None for what is no number."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
