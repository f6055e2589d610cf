"""Frontiers: the best accuracy reachable at or under each cost, and margins between them.

Definitions. Points are sorted by cost; a point is on the frontier if its accuracy exceeds that of every cheaper one.
Between consecutive frontier points the frontier is interpolated linearly: in cost, or in log2 of cost, as the reader
of the axis chooses. It begins at the cheapest point. Right of its last point it is constant, up to the most expensive
point that was measured. A method's frontier unites all its CRs.

Points that rest on fewer than 90 % of the problems that the method's other points have (an interrupted run, or a run
of a few problems beside a full one) are left out: they would compare few and easy problems with all of them.

A maximum over measured points is biased upwards, the more so the more points there are. The bootstrap of a margin
therefore resamples the problems and takes the maximum over points anew in every resample.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.results.points import check_axis

if TYPE_CHECKING:
    import pandas as pd


Floats = NDArray[np.float64]
COVERAGE = 0.9  # share of its method's problems that a point must rest on to count for a frontier
FRONTIER = ("task", "model", "method")  # what the points of one frontier share; runs and CRs are united


def frontier(points: "pd.DataFrame", axis: str) -> "pd.DataFrame":
    """The points on the frontier of each (task, model, method), by ascending cost.

    Args:
        points: Rows with the columns of ``points.csv``.
        axis: A cost axis: kv_reads, peak_kv, peak_bytes, tokens or seconds.

    Raises:
        ResultsError: Unknown axis.
    """
    import pandas as pd

    check_axis(axis)
    most = points.groupby(list(FRONTIER))["n_problems"].transform("max")
    points = points[points["n_problems"] >= COVERAGE * most]
    parts = []
    for _, group in points.groupby(list(FRONTIER), sort=False):
        e = envelope(group[axis].to_numpy(dtype=float), group["accuracy"].to_numpy(dtype=float))
        parts.append(group.iloc[e.order[e.kept]])
    return pd.concat(parts) if parts else points.iloc[:0]


class Envelope(NamedTuple):
    """Frontiers as arrays, one a row; places that hold no frontier point repeat the one before.

    Attributes:
        x: (..., n) costs, ascending.
        y: (..., n) accuracies, ascending.
        order: (..., n) which input point each place came from.
        kept: (..., n) whether the place holds a frontier point.
        end: (...) cost of the most expensive point.
    """

    x: Floats
    y: Floats
    order: NDArray[np.intp]
    kept: NDArray[np.bool_]
    end: Floats


def envelope(x: Floats, y: Floats) -> Envelope:
    """The frontier of each row of points.

    Args:
        x: (..., n) costs, or log2 of them; a point with a non-finite cost or a NaN accuracy does not exist.
        y: (..., n) accuracies.
    """
    exists = np.isfinite(x) & ~np.isnan(y)
    x, y = np.where(exists, x, np.inf), np.where(exists, y, -np.inf)
    order = np.lexsort((-y, x), axis=-1)  # of equally dear points the most accurate comes first
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    best = np.maximum.accumulate(y, axis=-1)
    kept = np.ones(y.shape, dtype=np.bool_)
    kept[..., 1:] = y[..., 1:] > best[..., :-1]
    kept &= np.isfinite(x)
    last = np.maximum.accumulate(np.where(kept, np.arange(x.shape[-1]), 0), axis=-1)
    end = np.max(np.where(np.isfinite(x), x, -np.inf), axis=-1)
    return Envelope(np.take_along_axis(x, last, -1), best, order, kept, end)


def evaluate(e: Envelope, at: Floats) -> Floats:
    """Frontiers at the given costs, interpolated linearly in the envelope's own x.

    Args:
        e: Envelopes of shape (..., n).
        at: (m,) costs.

    Returns:
        (..., m); NaN left of the cheapest and right of the most expensive point.
    """
    order = np.argsort(at)
    left = np.maximum(_reached(e.x, at[order])[..., np.argsort(order)] - 1, 0)  # the last place at or left of each cost
    right = np.minimum(left + 1, e.x.shape[-1] - 1)
    x0, x1, y0, y1 = (np.take_along_axis(v, i, -1) for v, i in ((e.x, left), (e.x, right), (e.y, left), (e.y, right)))
    value = y0 + _slope(x0, x1, y0, y1) * (at - x0)
    return np.where((at >= e.x[..., :1]) & (at <= e.end[..., None]), value, np.nan)


def _reached(x: Floats, at: Floats) -> NDArray[np.intp]:
    """(..., m), how many of each row's places lie at or left of each of the (m,) ascending costs."""
    rows, bins = x.reshape(-1, x.shape[-1]), len(at) + 1
    first = np.searchsorted(at, rows)  # the first cost that is not left of each place
    cells = first + bins * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=bins * len(rows)).reshape(-1, bins)
    return counts.cumsum(axis=1)[:, :-1].reshape(*x.shape[:-1], len(at))


def area(e: Envelope, low: Floats, high: Floats) -> Floats:
    """Integral of frontiers from ``low`` to ``high`` in closed form.

    Args:
        e: Envelopes of shape (..., n).
        low: (...) left ends, at least the cheapest cost.
        high: (...) right ends; the frontier is constant right of its last point.
    """
    low, high = low[..., None], high[..., None]
    x0, x1, y0, y1 = e.x[..., :-1], e.x[..., 1:], e.y[..., :-1], e.y[..., 1:]
    slope = _slope(x0, x1, y0, y1)
    a, b = np.clip(x0, low, high), np.clip(x1, low, high)  # equal if the segment lies outside
    trapezoids = (b - a) * (y0 + slope * ((a + b) / 2 - x0))
    flat = (high - np.clip(e.x[..., -1:], low, high)) * e.y[..., -1:]
    return np.asarray(trapezoids.sum(axis=-1) + flat[..., 0], dtype=np.float64)


def gap(a: Envelope, b: Envelope) -> tuple[Floats, Floats, Floats]:
    """Mean height of a above b over their common interval, with the interval's ends; NaN where there is none."""
    low = np.maximum(a.x[..., 0], b.x[..., 0])
    high = np.minimum(a.end, b.end)
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
