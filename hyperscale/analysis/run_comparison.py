"""Compares two runs problem by problem: at equal W and L, and at equal cost.

Every comparison is paired: only the problems of both count (`hyperscale.analysis.differences`), for accuracies and for
costs. At equal cost, each frontier point of the first run stands beside the best point of the second at or under its
cost; both are chosen by their accuracies, so the choice is a little lucky on both sides.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hyperscale.analysis.differences import Difference, paired_difference
from hyperscale.analysis.frontier import drop_sparse_points, frontier_points
from hyperscale.analysis.margins import MethodPair
from hyperscale.errors import ResultsError
from hyperscale.methods.arm import Arm
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.points import MeasuredPoint, check_axis
from hyperscale.utils.sorting import natural_order

_ROUNDING = 1 + 1e-9  # a cost within this factor of another is equal to it


@dataclass(frozen=True)
class ComparedPoints:
    """A point of each run.

    Attributes:
        a: Of the first run.
        b: Of the second run.
        difference: Accuracy of b less that of a, on the problems of both.
        accuracy_a: Of a, on the problems of both, in percent.
        accuracy_b: The same of b.
        cost_a: Of a, on the problems of both.
        cost_b: The same of b.
    """

    a: MeasuredPoint
    b: MeasuredPoint
    difference: Difference
    accuracy_a: float
    accuracy_b: float
    cost_a: float
    cost_b: float

    def row(self) -> dict[str, Any]:
        """The pair as numbers: W and L of each side, accuracies, costs, the difference with its interval."""
        return {
            **{
                f"{name}_{side}": getattr(point, name)
                for side, point in (("a", self.a), ("b", self.b))
                for name in "WL"
            },
            **{name: getattr(self, name) for name in ("accuracy_a", "accuracy_b", "cost_a", "cost_b")},
            **{"difference": self.difference.value, "difference_low": self.difference.low},
            **{"difference_high": self.difference.high, "n_problems": self.difference.n_problems},
        }


@dataclass(frozen=True)
class Comparison:
    """Two arms on a task.

    Attributes:
        task: Task.
        axis: Cost axis.
        a: Arm of the first run.
        b: Arm of the second run.
        at_equal_size: Points of equal W and L, by L and W.
        at_equal_cost: Each frontier point of a, with the best point of b at or under its cost; both have the shared
            problems alone.
    """

    task: str
    axis: str
    a: Arm
    b: Arm
    at_equal_size: tuple[ComparedPoints, ...]
    at_equal_cost: tuple[ComparedPoints, ...]


def compare_points(
    first: Sequence[MeasuredPoint],
    second: Sequence[MeasuredPoint],
    axis: str = "kv_reads",
    pairs: Sequence[MethodPair] | None = None,
    *,
    same: bool | None = None,
) -> list[Comparison]:
    """Compare the arms of two runs on every task that both have.

    Args:
        first: Points of the first run.
        second: Points of the second run, or of the same.
        axis: Cost axis.
        pairs: (method of the second run, method of the first) each; by default every arm with the same one of the other
            run where it has it and they are not one run, else with its only arm, else with vanilla.
        same: Whether the two are one run; by default whether their points are the same. Names say nothing: folders in
            different places may share one.

    Raises:
        ResultsError: Unknown axis, or nothing can be compared.
    """
    check_axis(axis)
    arms_of_first, arms_of_second = _by_task_and_arm(first), _by_task_and_arm(second)
    is_same = _have_same_points(first, second) if same is None else same
    comparisons = []
    for (task, b), points_b in arms_of_second.items():
        candidates = {arm: points for (other, arm), points in arms_of_first.items() if other == task}
        for a in _counterparts(b, candidates, pairs, is_same=is_same):
            comparisons.append(_compare(task, axis, (a, candidates[a]), (b, points_b)))
    found = [each for each in comparisons if each.at_equal_size or each.at_equal_cost]
    if not found:
        have = "; ".join(
            f"{name} has {', '.join(f'{arm} on {task}' for task, arm in arms)}"
            for name, arms in (("the first", arms_of_first), ("the second", arms_of_second))
        )
        raise ResultsError(
            f"nothing to compare: no arms of the two have a task, a point and a problem in common ({have}); name "
            "methods of the second and the first run with --pair dms:vanilla"
        )

    def place(each: Comparison) -> tuple[Any, ...]:
        return natural_order(each.task), rank(each.b.method), each.b, rank(each.a.method), each.a

    return sorted(found, key=place)


def _have_same_points(first: Sequence[MeasuredPoint], second: Sequence[MeasuredPoint]) -> bool:
    """Whether two lists hold equal points in equal order, with equal values on every problem."""

    def key(point: MeasuredPoint) -> tuple[Any, ...]:
        # Bytes: a cost may be NaN, which equals nothing.
        costs = tuple((axis, values.tobytes()) for axis, values in point.costs.items())
        return point.series, point.W, point.L, point.problems, point.accuracy.tobytes(), costs

    return len(first) == len(second) and all(a is b or key(a) == key(b) for a, b in zip(first, second, strict=True))


def _by_task_and_arm(points: Iterable[MeasuredPoint]) -> dict[tuple[str, Arm], list[MeasuredPoint]]:
    groups: dict[tuple[str, Arm], list[MeasuredPoint]] = {}
    for point in points:
        series = point.series
        groups.setdefault((series.task, Arm(series.method, series.CR, kv_budget=series.kv_budget)), []).append(point)
    return groups


def _counterparts(b: Arm, candidates: Iterable[Arm], pairs: Sequence[MethodPair] | None, *, is_same: bool) -> list[Arm]:
    """The arms of the first run that an arm of the second is compared with."""
    candidates = list(candidates)
    if pairs is not None:
        methods = [first for second, first in pairs if second == b.method]
        return [arm for arm in candidates if arm.method in methods and not (is_same and arm == b)]
    if b in candidates and not is_same:
        return [b]
    others = [arm for arm in candidates if arm != b]
    vanilla = [arm for arm in others if arm.method == VANILLA]
    return others if len(others) == 1 and not is_same else [] if b.method == VANILLA else vanilla


def _compare(
    task: str, axis: str, a: tuple[Arm, list[MeasuredPoint]], b: tuple[Arm, list[MeasuredPoint]]
) -> Comparison:
    of_b = {(point.L, point.W): point for point in b[1]}
    equal = [(point, of_b[point.L, point.W]) for point in a[1] if (point.L, point.W) in of_b]
    equal.sort(key=lambda pair: (pair[0].L, pair[0].W))
    # A run of more problems may have harder ones, whose chains cost more: they would count for one run alone.
    problems_a, problems_b = ({name for point in points for name in point.problems} for _, points in (a, b))
    shared = problems_a & problems_b
    at_cost = []
    reliable = drop_sparse_points(_restrict(b[1], shared))
    for point in frontier_points(_restrict(a[1], shared), axis):
        ceiling = _mean_cost(axis)(point) * _ROUNDING
        best = max(
            (other for other in reliable if _mean_cost(axis)(other) <= ceiling),
            key=lambda other: (float(other.accuracy.mean()), -_mean_cost(axis)(other)),
            default=None,
        )
        if best is not None:
            at_cost.append((point, best))
    return Comparison(
        *(task, axis, a[0], b[0]),
        tuple(filter(None, (_pair(x, y, axis) for x, y in equal))),
        tuple(filter(None, (_pair(x, y, axis) for x, y in at_cost))),
    )


def _restrict(points: Iterable[MeasuredPoint], problems: Collection[str]) -> list[MeasuredPoint]:
    """The points on these problems alone; those that have none of them are left out."""
    restricted = []
    for point in points:
        rows = np.array([problem in problems for problem in point.problems])
        if rows.all():
            restricted.append(point)
        elif rows.any():
            costs = {axis: values[rows] for axis, values in point.costs.items()}
            names = tuple(problem for problem in point.problems if problem in problems)
            restricted.append(replace(point, problems=names, accuracy=point.accuracy[rows], costs=costs))
    return restricted


def _mean_cost(axis: str) -> Callable[[MeasuredPoint], float]:
    return lambda point: float(point.costs[axis].mean())


def _pair(a: MeasuredPoint, b: MeasuredPoint, axis: str) -> ComparedPoints | None:
    """Two points on the problems of both; None if they have none in common."""
    shared = set(a.problems) & set(b.problems)
    if not shared:
        return None
    rows = [np.array([problem in shared for problem in point.problems]) for point in (a, b)]
    accuracy_a, accuracy_b = (100 * float(p.accuracy[row].mean()) for p, row in zip((a, b), rows, strict=True))
    cost_a, cost_b = (float(p.costs[axis][row].mean()) for p, row in zip((a, b), rows, strict=True))
    return ComparedPoints(a, b, paired_difference(b, a), accuracy_a, accuracy_b, cost_a, cost_b)
