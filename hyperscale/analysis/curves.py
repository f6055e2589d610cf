"""Computes what plots and reports show, once: the answers, points, frontiers with their bands, and margins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.answers import Answer, find_answers
from hyperscale.analysis.bootstrap import N_BOOT, Bootstrap, make_bootstraps
from hyperscale.analysis.frontier import evaluate, first_frontier
from hyperscale.analysis.margins import Margin, MethodPair, compute_margins
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.results.points import COSTS, MeasuredPoint, check_axis, name_caches

Floats = NDArray[np.float64]
PLACES = 100  # along a frontier and its band


@dataclass(frozen=True)
class Curve:
    """One method's points on one task and cost axis, and its frontier.

    Attributes:
        task: Task.
        model: Model.
        method: Method.
        points: Every point, those of too few problems included.
        frontier: The points on the frontier, by ascending cost.
        cost: (`PLACES`,), evenly spaced in log2 from the cheapest to the most expensive point.
        middle: (`PLACES`,), the frontier there, in percent: the best at or under each cost.
        low: (`PLACES`,), lower end of its 95 % bootstrap band; NaN where there is none.
        high: (`PLACES`,), upper end.
        n_problems: Problems that the band resamples.
    """

    task: str
    model: str
    method: str
    points: list[MeasuredPoint]
    frontier: list[MeasuredPoint]
    cost: Floats
    middle: Floats
    low: Floats
    high: Floats
    n_problems: int

    @property
    def enough(self) -> bool:
        """Whether there are enough problems for bands and error bars."""
        return self.n_problems >= MIN_PROBLEMS


@dataclass(frozen=True)
class Analysis:
    """What `analyse` computes.

    Attributes:
        points: Every point, before averaging over problems.
        curves: Of each axis, one a task, model and method.
        margins: By model and task, then pair, then axis.
        answers: On the first axis, one a model and task.
    """

    points: list[MeasuredPoint]
    curves: dict[str, list[Curve]]
    margins: list[Margin]
    answers: list[Answer]


def analyse(
    points: Sequence[MeasuredPoint],
    axes: Sequence[str] = COSTS,
    pairs: Sequence[MethodPair] | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
    ceilings: Mapping[str, float] | None = None,
) -> Analysis:
    """The answers, points, frontiers with bands, and margins of finished chains; every resampled frontier is made once.

    Args:
        points: Points of finished chains, of one run or several.
        axes: Cost axes.
        pairs: Methods (a, b) to give the margin of a over b for; by default every method over vanilla.
        n_boot: Number of resamples.
        seed: Of the resampling.
        ceilings: Task to the budget on the first axis; without one where it is missing.

    Raises:
        ResultsError: Unknown axis, or a pair of which no task has both methods.
    """
    for axis in axes:
        check_axis(axis)
    points = name_caches(points)
    bootstraps = make_bootstraps(points, n_boot, seed)
    margins = compute_margins(bootstraps.values(), pairs, axes)
    curves = {
        axis: [curve for key, bootstrap in bootstraps.items() for curve in _curves(points, *key, bootstrap, axis)]
        for axis in axes
    }
    return Analysis(points, curves, margins, find_answers(bootstraps.values(), axes[0], ceilings))


def cost_and_accuracy(point: MeasuredPoint, axis: str) -> tuple[float, float]:
    """A point's mean cost, and its accuracy in percent."""
    return float(point.costs[axis].mean()), 100 * float(point.accuracy.mean())


def _curves(points: Sequence[MeasuredPoint], model: str, task: str, bootstrap: Bootstrap, axis: str) -> list[Curve]:
    """A task's curves; none for methods whose chains of a single token read nothing."""
    curves = []
    for method, reliable in bootstrap.points.items():
        problems = bootstrap.common_problems(method)
        frontier = first_frontier(bootstrap.resample_frontiers(method, axis, problems, log2=True))
        if not np.isfinite(frontier.max_cost):
            continue
        # Evenly spaced in log2, as the pictures' cost axes are.
        log2_cost = np.linspace(frontier.cost[0], frontier.max_cost, PLACES)
        log2_cost[-1] = frontier.max_cost  # rounding must not leave the interval
        cost = 2**log2_cost
        low, high = bootstrap.confidence_band(method, axis, cost)
        curves.append(
            Curve(
                task=task,
                model=model,
                method=method,
                points=[
                    point
                    for point in points
                    if (point.series.model, point.series.task, point.series.method) == (model, task, method)
                ],
                frontier=[reliable[i] for i in frontier.order[frontier.on_frontier]],
                cost=cost,
                middle=evaluate(frontier, log2_cost, steps=True),
                low=low,
                high=high,
                n_problems=len(problems),
            )
        )
    return curves
