"""Everything that pictures and tables of margins are made of, computed once: points, frontiers, bands and margins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.bootstrap import MIN_PROBLEMS, N_BOOT, Bootstrap, band_of, bootstraps
from hyperscale.analysis.frontier import Envelope, evaluate
from hyperscale.analysis.margins import Margin, Pair, margins
from hyperscale.results.points import COSTS, Cell, Samples, cells, check_axis

Floats = NDArray[np.float64]
STEPS = 100  # places along a frontier's line and band


@dataclass(frozen=True)
class Curve:
    """One method's points on one task and cost axis, and its frontier.

    Attributes:
        task: Task.
        model: Model.
        method: Method.
        cells: Every point, those of too few problems included.
        frontier: The points on the frontier, by ascending cost.
        cost: (`STEPS`,), evenly spaced in log2 from the cheapest to the most expensive point.
        middle: (`STEPS`,), the frontier there, in percent, interpolated in log2 of cost.
        low: (`STEPS`,), lower end of its 95 % bootstrap band; NaN where there is none.
        high: (`STEPS`,), upper end.
        n_problems: Problems that the band resamples.
    """

    task: str
    model: str
    method: str
    cells: list[Cell]
    frontier: list[Cell]
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
    """What `analyse` found.

    Attributes:
        cells: Every point, before averaging over problems.
        curves: Of each axis, one a task, model and method.
        margins: By model and task, then pair, then axis.
    """

    cells: list[Cell]
    curves: dict[str, list[Curve]]
    margins: list[Margin]


def analyse(
    samples: Samples,
    axes: Sequence[str] = COSTS,
    pairs: Sequence[Pair] | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
    strategies: Mapping[str, str] | None = None,
) -> Analysis:
    """Points, frontiers with bands, and margins of finished chains; every resampled frontier is made once.

    Args:
        samples: Lines of ``samples.jsonl``, of one run or several.
        axes: Cost axes.
        pairs: Methods (a, b) to give the margin of a over b for; by default every method over vanilla.
        n_boot: Number of resamples.
        seed: Of the resampling.
        strategies: As for `hyperscale.results.points.points`.

    Raises:
        ResultsError: Unknown axis, a pair of which no task has both methods, or a sample lacks a field.
        TaskError: A task is neither in ``strategies`` nor known.
    """
    for axis in axes:
        check_axis(axis)
    found = cells(samples, strategies)
    made = bootstraps(found, n_boot, seed)
    compared = margins(made.values(), pairs, axes)
    curves = {axis: [curve for key in made for curve in _curves(found, *key, made[key], axis)] for axis in axes}
    return Analysis(found, curves, compared)


def xy(cell: Cell, axis: str) -> tuple[float, float]:
    """A point's mean cost, and its accuracy in percent."""
    return float(cell.costs[axis].mean()), 100 * float(cell.accuracy.mean())


def _curves(found: Sequence[Cell], model: str, task: str, made: Bootstrap, axis: str) -> list[Curve]:
    """A task's curves; none for methods whose chains of a single token read nothing."""
    curves = []
    for method, reliable in made.methods.items():
        problems = made.problems(method)
        e = made.envelope(method, axis, problems, log2=True)
        kept, order, x, end = e.kept[0], e.order[0], e.x[0], float(e.end[0])
        if not np.isfinite(end):
            continue
        at = np.linspace(x[0], end, STEPS)
        at[-1] = end  # rounding must not leave the interval
        cost = 2**at
        sample = Envelope(x, e.y[0], order, kept, e.end[0])
        low, high = band_of(made, method, axis, cost)
        curves.append(
            Curve(
                task=task,
                model=model,
                method=method,
                cells=[
                    cell for cell in found if (cell.arm.model, cell.arm.task, cell.arm.method) == (model, task, method)
                ],
                frontier=[reliable[i] for i in order[kept]],
                cost=cost,
                middle=evaluate(sample, at),
                low=low,
                high=high,
                n_problems=len(problems),
            )
        )
    return curves
