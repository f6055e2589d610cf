"""Margins between two frontiers, with intervals that resample problems and take the maximum over points anew.

Margin of a over b: area between their frontiers over their common cost interval / the interval's length, in points of
accuracy; once on the linear cost axis (frontiers interpolated linearly in cost), once on the log2 axis (interpolated
linearly in log2 of cost). The paper does not say which it integrates over, so both are always given. The common
interval runs from the dearer of the two cheapest points to the cheaper of the two most expensive ones.

How far to trust it: in simulations with 48 points against 16 (eight chains a problem, 30 to 120 problems) the nominal
95 % percentile interval covered the true margin in 87 to 93 % of cases, and where it missed, the truth nearly always
lay below it; the margin itself was 0.6 to 2.6 points too high, for the method with more points gains more from the
maximum. Bias-corrected and basic intervals covered no better. More problems help; more points do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.envelope import Envelope, area, envelope, evaluate
from hyperscale.errors import ResultsError
from hyperscale.points import COSTS, Cell, Samples, cells

Floats = NDArray[np.float64]
Interval = tuple[float, float]
NOWHERE: Interval = (float("nan"), float("nan"))
COVERAGE = 0.9  # share of its method's problems that a point must rest on to count for a frontier
FRONTIER = ("task", "model", "method")  # what the points of one frontier share; runs and CRs are united


@dataclass(frozen=True)
class Margin:
    """By how much frontier ``a`` lies above frontier ``b``.

    Attributes:
        a: Method.
        b: Method.
        task: Task.
        axis: Cost axis.
        linear: Margin on the linear axis, in percentage points; NaN where the frontiers have no common interval.
        linear_ci: Its 95 % bootstrap interval over problems.
        log2: Margin on the log2 axis, in percentage points.
        log2_ci: Its 95 % bootstrap interval over problems.
        interval: The common interval of costs, in the axis's unit.
        n_problems: Problems that both methods were run on; only they count.
    """

    a: str
    b: str
    task: str
    axis: str
    linear: float
    linear_ci: Interval
    log2: float
    log2_ci: Interval
    interval: Interval
    n_problems: int


class _Table(NamedTuple):
    """A method's points before averaging; points a problem is missing from hold 0 there.

    Attributes:
        accuracy: (problems, points), in percent.
        cost: (problems, points).
        present: (problems, points), 1 or 0.
    """

    accuracy: Floats
    cost: Floats
    present: Floats

    def resampled(self, counts: Floats) -> tuple[Floats, Floats]:
        """Costs and accuracies of every point, (resamples, points), for (resamples, problems) counts of problems."""
        with np.errstate(invalid="ignore", divide="ignore"):
            n = counts @ self.present
            return counts @ self.cost / n, counts @ self.accuracy / n


def margin(
    samples: "Samples | Sequence[Cell]",
    a: str,
    b: str,
    task: str,
    axis: str,
    n_boot: int = 1000,
    seed: int = 0,
    strategies: Mapping[str, str] | None = None,
) -> Margin:
    """The margin of method ``a`` over method ``b``.

    Each resample draws the problems with replacement, the same ones for both methods, and computes points, frontiers,
    the common interval and the areas again. A method's frontier unites its CRs (and its runs, if there are several).

    Args:
        samples: Lines of ``samples.jsonl``, or the cells made of them (`hyperscale.points.cells`), to make those once.
        a: Method.
        b: Method.
        task: Task.
        axis: Cost axis.
        n_boot: Number of resamples.
        seed: Of the resampling.
        strategies: As for `hyperscale.points.points`.

    Raises:
        ResultsError: Unknown axis, a method without chains on the task, or samples of several models.
    """
    check_axis(axis)
    found = _cells(samples, task, strategies)
    of_a, of_b = _of(found, a, task), _of(found, b, task)
    if len(models := sorted({cell.arm.model for cell in of_a + of_b})) > 1:
        raise ResultsError(f"samples of several models ({', '.join(models)}) share no frontier: pass one model's")
    problems = sorted(_problems(of_a) & _problems(of_b))
    if not problems:
        return Margin(a, b, task, axis, np.nan, NOWHERE, np.nan, NOWHERE, NOWHERE, 0)
    counts = _counts(len(problems), n_boot, seed)
    pair = [_table(part, axis, problems).resampled(counts) for part in (of_a, of_b)]
    linear, low, high = _gap(*(envelope(cost, accuracy) for cost, accuracy in pair))
    with np.errstate(invalid="ignore", divide="ignore"):
        log2, _, _ = _gap(*(envelope(np.log2(cost), accuracy) for cost, accuracy in pair))
    interval = NOWHERE if np.isnan(linear[0]) else (float(low[0]), float(high[0]))
    return Margin(a, b, task, axis, float(linear[0]), _ci(linear), float(log2[0]), _ci(log2), interval, len(problems))


def band(part: Sequence[Cell], axis: str, at: Floats, n_boot: int = 1000, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % bootstrap band of one method's frontier, interpolated in log2 of cost.

    Args:
        part: Cells of one method on one task.
        axis: Cost axis.
        at: (m,) costs.
        n_boot: Number of resamples.
        seed: Of the resampling.

    Returns:
        Lower and upper ends, each (m,), in percent; NaN where fewer than half of the resamples have a frontier.
    """
    part = reliable(part)
    problems = sorted(_problems(part))
    cost, accuracy = _table(part, axis, problems).resampled(_counts(len(problems), n_boot, seed))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = evaluate(envelope(np.log2(cost), accuracy), np.log2(at))
    enough = np.isfinite(values).mean(axis=0) >= 0.5
    values[:, ~enough] = 0
    low, high = np.nanpercentile(values, [2.5, 97.5], axis=0)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def check_axis(axis: str) -> None:
    """Refuse a name that is no cost axis.

    Raises:
        ResultsError: Unknown axis.
    """
    if axis not in COSTS:
        raise ResultsError(f"unknown axis {axis!r}; known axes: {', '.join(COSTS)}")


def reliable(part: Iterable[Cell]) -> list[Cell]:
    """The cells that rest on enough of the problems that any cell of their frontier has; only these may make it.

    Few problems make noisy points, of which the maximum picks the lucky ones, and an interrupted run's are easy ones.
    """
    part = list(part)
    frontiers = [tuple(getattr(cell.arm, name) for name in FRONTIER) for cell in part]
    most: dict[tuple[str, ...], int] = {}
    for cell, each in zip(part, frontiers, strict=True):
        most[each] = max(most.get(each, 0), len(cell.problems))
    return [cell for cell, each in zip(part, frontiers, strict=True) if len(cell.problems) >= COVERAGE * most[each]]


def _cells(samples: "Samples | Sequence[Cell]", task: str, strategies: Mapping[str, str] | None) -> list[Cell]:
    """The cells of one task; making them is the slow part, so other tasks' samples are left out first."""
    given: list[Any] = samples.to_dict("records") if hasattr(samples, "to_dict") else list(samples)
    if given and isinstance(given[0], Cell):
        return [cell for cell in given if cell.arm.task == task]
    return cells([sample for sample in given if sample.get("task", task) == task], strategies)


def _of(found: Sequence[Cell], method: str, task: str) -> list[Cell]:
    part = reliable(cell for cell in found if cell.arm.method == method)
    if not part:
        there = sorted({cell.arm.method for cell in found})
        raise ResultsError(f"no chains of {method} on {task}; there are chains of: {', '.join(there) or 'no method'}")
    return part


def _problems(part: Iterable[Cell]) -> set[str]:
    return {problem for cell in part for problem in cell.problems}


def _table(part: Sequence[Cell], axis: str, problems: Sequence[str]) -> _Table:
    place = {problem: i for i, problem in enumerate(problems)}
    table = _Table(*(np.zeros((len(problems), len(part))) for _ in range(3)))
    for j, cell in enumerate(part):
        mine = [i for i, problem in enumerate(cell.problems) if problem in place]
        rows = [place[cell.problems[i]] for i in mine]
        table.accuracy[rows, j] = 100 * cell.accuracy[mine]
        table.cost[rows, j] = cell.costs[axis][mine]
        table.present[rows, j] = 1
    return table


def _counts(problems: int, n_boot: int, seed: int) -> Floats:
    """How often each problem is drawn: row 0 is the sample itself, then one row a resample."""
    drawn = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), size=n_boot)
    return np.vstack([np.ones(problems), drawn])


def _gap(a: Envelope, b: Envelope) -> tuple[Floats, Floats, Floats]:
    """Mean height of a above b over their common interval, with the interval's ends; NaN where there is none."""
    low = np.maximum(a.x[..., 0], b.x[..., 0])
    high = np.minimum(a.end, b.end)
    common = np.isfinite(low) & np.isfinite(high) & (low < high)
    safe_low, safe_high = np.where(common, low, 0.0), np.where(common, high, 1.0)
    with np.errstate(invalid="ignore"):
        gap = (area(a, safe_low, safe_high) - area(b, safe_low, safe_high)) / (safe_high - safe_low)
    return np.where(common, gap, np.nan), low, high


def _ci(values: Floats) -> Interval:
    """Percentile interval of the resamples in which the frontiers meet; NaN if that is not most of them."""
    resamples = values[1:][np.isfinite(values[1:])]
    if len(resamples) == 0 or len(resamples) < len(values[1:]) / 2:
        return NOWHERE
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)
