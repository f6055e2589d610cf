"""Answers a run's question in numbers: what a budget buys with each method, and what equals the full cache for less.

Three things are told of each model and task; `hyperscale.analysis.sentences` writes them in words.

1. The best point of every method at or under the budget. The best of many noisy points is lucky, so its interval is not
   that of the point alone: its lower end is the highest of lower ends that hold for all points at once (Wilson's, at
   the confidence at which no point exceeds its truth in 97.5 % of the bootstrap's resamples).
2. The cheapest configuration of every method that equals the full cache's best: the interval of the paired difference
   (`differences`) lies above -`TOLERANCE` points. It is sought among many configurations, so the interval is one that
   holds for all of the method's at once, as above. The full cache's best is a maximum over noisy points as well, which
   makes it a little too high, and the claim harder. ``python benchmarks/answer_errors.py`` measures how often it is
   wrong (results/measurements/intervals.md).
3. What is not decided: where the interval reaches below -`TOLERANCE` and above 0. How many problems would decide is
   estimated from the width, which shrinks with the root of their number.

Costs are compared at equal accuracy: against that of the cheapest point of the full cache that is at least as accurate
as the configuration. Where none is, its best stands in for that, and the words say that it is less accurate.

Methods may have been run on unlike problems. Each is then held against the full cache's best on the problems of both,
which may be another point for each method.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.bootstrap import Bootstrap
from hyperscale.analysis.differences import Difference, paired_difference
from hyperscale.analysis.frontier import find_frontiers
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.intervals import CONFIDENCE, AccuracyInterval, Z, wilson_interval
from hyperscale.results.points import MeasuredPoint
from hyperscale.utils.sorting import natural_order

TOLERANCE = 5.0
"""Points of accuracy that a configuration may lie below the full cache's best and still count as equal."""
_ROUNDING = 1 + 1e-9  # a cost within this factor of the budget is within it


class Verdict(StrEnum):
    """What the numbers say of a method's configuration beside the full cache's best."""

    EQUAL = "equal"
    BELOW = "below"
    OPEN = "not decided"


@dataclass(frozen=True)
class Best:
    """The most accurate point of a method at or under the budget.

    Attributes:
        method: Method.
        point: The point, the cheapest of equally accurate ones; None if every point costs more.
        cost: Its cost on the answer's axis; that of the method's cheapest point if there is none.
        interval: 95 % interval of the best accuracy, as shares; NaN with few problems.
    """

    method: str
    point: MeasuredPoint | None
    cost: float
    interval: AccuracyInterval


@dataclass(frozen=True)
class Match:
    """A method's configuration beside the full cache's best.

    Attributes:
        method: Method.
        verdict: What is known of it.
        point: If equal, the cheapest configuration that is known to be. If not decided, the cheapest that was measured
            at least as accurate as the full cache's best, else the method's best. If below, the method's best.
        accuracy: Its accuracy on the problems of both, as a share.
        interval: 95 % interval of that; NaN with few problems.
        cost: Its cost on the problems of both.
        base: The full cache's best on the problems of both.
        base_accuracy: The accuracy of that on these problems, as a share.
        base_cost: What the full cache needs to be as accurate; what its best costs where it never is.
        difference: Its accuracy less that of the full cache's best, problem by problem.
        more_problems: How many problems would decide, if differences stay as they are; None where none would.
    """

    method: str
    verdict: Verdict
    point: MeasuredPoint
    accuracy: float
    interval: AccuracyInterval
    cost: float
    base: MeasuredPoint
    base_accuracy: float
    base_cost: float
    difference: Difference
    more_problems: int | None = None

    @property
    def exceeds_base(self) -> bool:
        """Whether it was measured more accurate than every point of the full cache."""
        return self.accuracy > self.base_accuracy + 1e-9


@dataclass(frozen=True)
class Answer:
    """What the points of a model on a task say.

    Attributes:
        model: Model.
        task: Task.
        axis: Cost axis.
        ceiling: The budget on that axis, per problem; infinite if there is none.
        n_problems: Problems, by method.
        bests: Of each method.
        base: The full cache's best on all of its problems, at any cost; None without the full cache.
        matches: Of each other method that has problems in common with the full cache, one or two: where a
            configuration is known to be equal, a cheaper one may have been measured to be.
    """

    model: str
    task: str
    axis: str
    ceiling: float
    n_problems: Mapping[str, int]
    bests: tuple[Best, ...]
    base: MeasuredPoint | None
    matches: tuple[Match, ...]


def find_answers(
    bootstraps: Iterable[Bootstrap], axis: str, ceilings: Mapping[str, float] | None = None
) -> list[Answer]:
    """The answers of points, one a model and task, by task.

    Args:
        bootstraps: One for each model and task.
        axis: Cost axis.
        ceilings: Task to its budget; without one where it is missing.
    """
    answers = [_answer(bootstrap, axis, ceilings or {}) for bootstrap in bootstraps if bootstrap.points]
    return sorted(answers, key=lambda answer: natural_order(answer.task))


def _answer(bootstrap: Bootstrap, axis: str, ceilings: Mapping[str, float]) -> Answer:
    methods = sorted(bootstrap.points, key=rank)  # the full cache first
    series = bootstrap.points[methods[0]][0].series
    ceiling = ceilings.get(series.task, np.inf)
    others = [method for method in methods[1:] if bootstrap.common_problems(method, methods[0])]
    has_base = methods[0] == VANILLA
    return Answer(
        model=series.model,
        task=series.task,
        axis=axis,
        ceiling=ceiling,
        n_problems={method: len(bootstrap.common_problems(method)) for method in methods},
        bests=tuple(_best(bootstrap, method, axis, ceiling) for method in methods),
        base=_base(bootstrap, axis) if has_base else None,
        matches=tuple(match for method in others for match in _matches(bootstrap, method, axis)) if has_base else (),
    )


def _best(bootstrap: Bootstrap, method: str, axis: str, ceiling: float) -> Best:
    problems = bootstrap.common_problems(method)
    costs, accuracies = bootstrap.resample_points(method, axis, problems)
    affordable = np.flatnonzero(costs[0] <= ceiling * _ROUNDING)
    if not len(affordable):
        return Best(method, None, float(costs[0].min()), AccuracyInterval(np.nan, np.nan))
    # The most accurate one; of those the cheapest.
    i = max(affordable, key=lambda j: (accuracies[0, j], -costs[0, j]))
    points = bootstrap.points[method]
    interval = _interval_of_best([points[j] for j in affordable], accuracies[:, affordable])
    return Best(method, points[i], float(costs[0, i]), interval)


def _interval_of_best(points: Sequence[MeasuredPoint], accuracies: NDArray[np.float64]) -> AccuracyInterval:
    """The interval of the accuracy of the best of some points, with (1 + resamples, points) accuracies."""
    confidence = 2 * NormalDist().cdf(_simultaneous_z(accuracies)) - 1
    low = max(wilson_interval(point.accuracy, confidence).low for point in points)
    high = max(point.interval.high for point in points)
    return AccuracyInterval(low, high)


def _simultaneous_z(values: NDArray[np.float64]) -> float:
    """How many standard errors below their values lower ends are that hold for all columns at once, in 97.5 %.

    Args:
        values: (1 + resamples, n), row 0 the sample's own.
    """
    sample, resamples = values[0], values[1:]
    errors = np.nanstd(resamples, axis=0)
    varies = errors > 0
    if not varies.any():
        return Z
    excess = np.nanmax((resamples[:, varies] - sample[varies]) / errors[varies], axis=1)
    return max(Z, float(np.nanquantile(excess, (1 + CONFIDENCE) / 2)))


def _base(bootstrap: Bootstrap, axis: str) -> MeasuredPoint:
    costs, accuracies = (
        rows[0] for rows in bootstrap.resample_points(VANILLA, axis, bootstrap.common_problems(VANILLA))
    )
    return bootstrap.points[VANILLA][_most_accurate(costs, accuracies)]


def _matches(bootstrap: Bootstrap, method: str, axis: str) -> list[Match]:
    """The method beside the full cache, on the problems of both."""
    problems = bootstrap.common_problems(method, VANILLA)
    chosen = set(problems)
    all_base_costs, all_base_accuracies = bootstrap.resample_points(VANILLA, axis, problems)
    all_costs, all_accuracies = bootstrap.resample_points(method, axis, problems)
    # Row 0 is the sample itself.
    base_costs, base_accuracies, costs, accuracies = (
        rows[0] for rows in (all_base_costs, all_base_accuracies, all_costs, all_accuracies)
    )
    place = _most_accurate(base_costs, base_accuracies)
    base = bootstrap.points[VANILLA][place]
    z = _simultaneous_z(all_accuracies - all_base_accuracies[:, [place]])
    frontier = find_frontiers(costs, accuracies)
    candidates = frontier.order[frontier.on_frontier]  # by ascending cost and accuracy

    def match(i: int, difference: Difference, verdict: Verdict) -> Match:
        enough = base_accuracies >= min(accuracies[i], np.nanmax(base_accuracies)) - 1e-9
        base_cost = float(np.nanmin(base_costs[enough]))
        more = _problems_to_decide(difference) if verdict is Verdict.OPEN else None
        point = bootstrap.points[method][i]
        shares = np.array([x for name, x in zip(point.problems, point.accuracy, strict=True) if name in chosen])
        own = float(shares.mean()), wilson_interval(shares), float(costs[i])
        return Match(
            method, verdict, point, *own, base, float(base_accuracies[place]) / 100, base_cost, difference, more
        )

    differences = {i: paired_difference(bootstrap.points[method][i], base, problems, z) for i in candidates}
    # The cheapest that is known to be equal, and the cheapest that was measured to be.
    known = next((i for i, difference in differences.items() if difference.low >= -TOLERANCE), None)
    measured = next((i for i, difference in differences.items() if difference.value >= 0), None)
    matches = [] if known is None else [match(known, differences[known], Verdict.EQUAL)]
    if measured is not None and (known is None or costs[measured] < costs[known]):
        matches.append(match(measured, differences[measured], Verdict.OPEN))
    if matches:
        return matches
    # The best of them is lucky, so that it lies below 0 needs no wider interval.
    best = candidates[-1]
    alone = paired_difference(bootstrap.points[method][best], base, problems)
    return [match(best, alone, Verdict.BELOW if alone.high < 0 else Verdict.OPEN)]


def _most_accurate(costs: NDArray[np.float64], accuracies: NDArray[np.float64]) -> int:
    """The place of the most accurate point, of equally accurate ones the cheapest."""
    return int(np.lexsort((costs, -np.nan_to_num(accuracies, nan=-np.inf)))[0])


def _problems_to_decide(difference: Difference) -> int | None:
    """How many problems would bring the interval above -`TOLERANCE`, or below 0, if nothing else changes."""
    if not difference.has_interval:
        return None
    half = (difference.high - difference.low) / 2
    # Above the tolerance if the difference is on its upper half, else below 0; in between nothing would decide soon.
    room = max(difference.value + TOLERANCE, -difference.value)
    return int(np.ceil((difference.n_problems + 2) * (half / room) ** 2))
