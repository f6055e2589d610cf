"""Finds frontiers, the best accuracy reachable at or under each cost, and the mean gap between two of them.

Definitions. Points are sorted by cost; a point is on the frontier if its accuracy exceeds that of every cheaper one.
The frontier begins at the cheapest point. Right of its last point it is constant, up to the most expensive point that
was measured. A method's frontier unites all its CRs.

Between its points it has two heights. Pictures, their bands and the report draw steps: the best accuracy that was
measured at or under a cost. Margins are areas between lines: linear in cost, or in log2 of cost, as the reader of the
axis chooses, which favours no method for having its points at more costs.

Points that rest on fewer than 90 % of the problems that the method's other points have (an interrupted run, or a run
of a few problems beside a full one) are left out: they would compare few and easy problems with all of them.

All functions take many frontiers at once, one a row, because the bootstrap makes a thousand of each.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.methods.names import rank
from hyperscale.results.points import MeasuredPoint, check_axis
from hyperscale.utils.sorting import natural_order

Floats = NDArray[np.float64]
COVERAGE = 0.9  # share of its method's problems that a point must rest on to count for a frontier


class Frontiers(NamedTuple):
    """Frontiers as arrays, one a row; places that hold no frontier point repeat the one before.

    Attributes:
        cost: (..., n), ascending; log2 of costs if they were made of these.
        accuracy: (..., n), ascending.
        order: (..., n), which input point each place came from.
        on_frontier: (..., n), whether the place holds a frontier point.
        max_cost: (...), cost of the most expensive point, where the frontier ends.
    """

    cost: Floats
    accuracy: Floats
    order: NDArray[np.intp]
    on_frontier: NDArray[np.bool_]
    max_cost: Floats


def frontier_points(points: Iterable[MeasuredPoint], axis: str) -> list[MeasuredPoint]:
    """The points on the frontier of each (task, model, method), by ascending cost; methods in their usual order.

    Args:
        points: Of any tasks, models and methods; runs and CRs of a method are united.
        axis: A cost axis: kv_reads, peak_kv, peak_bytes, tokens, seconds or read_bytes.

    Raises:
        ResultsError: Unknown axis.
    """
    check_axis(axis)
    groups: dict[tuple[str, str, str], list[MeasuredPoint]] = {}
    for point in drop_sparse_points(points):
        groups.setdefault((point.series.task, point.series.model, point.series.method), []).append(point)
    selection: list[MeasuredPoint] = []
    for _, group in sorted(groups.items(), key=lambda item: (natural_order(item[0][0]), item[0][1], rank(item[0][2]))):
        cost, accuracy = np.array([(point.costs[axis].mean(), point.accuracy.mean()) for point in group]).T
        frontier = find_frontiers(cost, accuracy)
        selection += [group[i] for i in frontier.order[frontier.on_frontier]]
    return selection


def drop_sparse_points(points: Iterable[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points that rest on enough of the problems that any point of their frontier has; only these may make it.

    Few problems make noisy points, of which the maximum picks the lucky ones, and an interrupted run's are easy ones.
    """
    points = list(points)
    keys = [(point.series.task, point.series.model, point.series.method) for point in points]
    n_problems: dict[tuple[str, str, str], int] = {}
    for point, key in zip(points, keys, strict=True):
        n_problems[key] = max(n_problems.get(key, 0), len(point.problems))
    return [point for point, key in zip(points, keys, strict=True) if len(point.problems) >= COVERAGE * n_problems[key]]


def find_frontiers(cost: Floats, accuracy: Floats) -> Frontiers:
    """The frontier of each row of points.

    Args:
        cost: (..., n), or log2 of costs; a point with a non-finite cost or a NaN accuracy does not exist.
        accuracy: (..., n).
    """
    # What does not exist sorts behind all points and never raises the maximum.
    exists = np.isfinite(cost) & ~np.isnan(accuracy)
    cost, accuracy = np.where(exists, cost, np.inf), np.where(exists, accuracy, -np.inf)
    order = np.lexsort((-accuracy, cost), axis=-1)  # of points of equal cost the most accurate comes first
    cost, accuracy = np.take_along_axis(cost, order, -1), np.take_along_axis(accuracy, order, -1)
    best = np.maximum.accumulate(accuracy, axis=-1)
    on_frontier = np.ones(accuracy.shape, dtype=np.bool_)
    on_frontier[..., 1:] = accuracy[..., 1:] > best[..., :-1]
    on_frontier &= np.isfinite(cost)
    # Rows have unlike numbers of frontier points but one length: other places repeat the frontier point before them,
    # which makes segments without length that neither interpolation nor area sees.
    last = np.maximum.accumulate(np.where(on_frontier, np.arange(cost.shape[-1]), 0), axis=-1)
    max_cost = np.max(np.where(np.isfinite(cost), cost, -np.inf), axis=-1)
    return Frontiers(np.take_along_axis(cost, last, -1), best, order, on_frontier, max_cost)


def evaluate(frontiers: Frontiers, at: Floats, *, steps: bool = False) -> Floats:
    """Heights of frontiers at the given costs, interpolated linearly in the frontiers' own costs, or as steps.

    Args:
        frontiers: Of shape (..., n).
        at: (m,) costs.
        steps: The best at or under each cost, in place of the line to the next point.

    Returns:
        (..., m); NaN left of the cheapest and right of the most expensive point.
    """
    x, y = frontiers.cost, frontiers.accuracy
    order = np.argsort(at)
    # The segment of each cost: from the last place at or left of it to the next one.
    start = np.maximum(_count_reached(x, at[order])[..., np.argsort(order)] - 1, 0)
    end = np.minimum(start + 1, x.shape[-1] - 1)
    x0, x1, y0, y1 = (np.take_along_axis(v, i, -1) for v, i in ((x, start), (x, end), (y, start), (y, end)))
    value = y0 if steps else y0 + _slope(x0, x1, y0, y1) * (at - x0)
    return np.where((at >= x[..., :1]) & (at <= frontiers.max_cost[..., None]), value, np.nan)


def _count_reached(x: Floats, at: Floats) -> NDArray[np.intp]:
    """(..., m), how many of each row's places lie at or left of each of the (m,) ascending costs.

    A searchsorted for every row at once: all places are sorted into the few costs, then counted per row.
    """
    rows, bins = x.reshape(-1, x.shape[-1]), len(at) + 1
    first = np.searchsorted(at, rows)  # the first cost that is not left of each place
    bin_of_row = first + bins * np.arange(len(rows))[:, None]
    counts = np.bincount(bin_of_row.ravel(), minlength=bins * len(rows)).reshape(-1, bins)
    return counts.cumsum(axis=1)[:, :-1].reshape(*x.shape[:-1], len(at))


def area(frontiers: Frontiers, low: Floats, high: Floats) -> Floats:
    """Integral of frontiers from ``low`` to ``high`` in closed form.

    Args:
        frontiers: Of shape (..., n).
        low: (...) left ends, at least the cheapest cost.
        high: (...) right ends; the frontier is constant right of its last point.
    """
    low, high = low[..., None], high[..., None]
    x0, x1 = frontiers.cost[..., :-1], frontiers.cost[..., 1:]
    y0, y1 = frontiers.accuracy[..., :-1], frontiers.accuracy[..., 1:]
    slope = _slope(x0, x1, y0, y1)
    # Each segment's part inside the interval: a and b are equal if it lies outside, and its trapezoid is then empty.
    a, b = np.clip(x0, low, high), np.clip(x1, low, high)
    trapezoids = (b - a) * (y0 + slope * ((a + b) / 2 - x0))
    # Right of the last frontier point: a rectangle.
    flat = (high - np.clip(frontiers.cost[..., -1:], low, high)) * frontiers.accuracy[..., -1:]
    return np.asarray(trapezoids.sum(axis=-1) + flat[..., 0], dtype=np.float64)


def mean_gap(a: Frontiers, b: Frontiers) -> tuple[Floats, Floats, Floats]:
    """Mean height of a above b over their common interval, with the interval's ends; NaN where there is none."""
    low = np.maximum(a.cost[..., 0], b.cost[..., 0])
    high = np.minimum(a.max_cost, b.max_cost)
    # Rows without a common interval get an interval of length 1, so that nothing is divided by zero, and are NaN below.
    common = np.isfinite(low) & np.isfinite(high) & (low < high)
    safe_low, safe_high = np.where(common, low, 0.0), np.where(common, high, 1.0)
    with np.errstate(invalid="ignore"):
        gap = (area(a, safe_low, safe_high) - area(b, safe_low, safe_high)) / (safe_high - safe_low)
    return np.where(common, gap, np.nan), low, high


def _slope(x0: Floats, x1: Floats, y0: Floats, y1: Floats) -> Floats:
    """Slopes of segments; 0 for those without length."""
    with np.errstate(invalid="ignore"):  # a row without any point holds infinities
        run, rise = x1 - x0, y1 - y0
    return np.divide(rise, run, out=np.zeros(run.shape), where=run > 0)


def first_frontier(frontiers: Frontiers) -> Frontiers:
    """The first row of (rows, n) frontiers, as one frontier of shape (n,)."""
    return Frontiers(*(values[0] for values in frontiers))
