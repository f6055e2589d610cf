"""Computes how large changes are by chance alone, by the swap test, and the intervals that follow.

If the same model, method and code made both sets of results, from equally many chains with other seeds, then either's
results of a problem could as well be the other's. So the two are swapped on a random half of the problems, every
quantity's change is computed anew, and this is repeated: the changes found so are what chance gives. The test needs no
assumption about the distribution of accuracies and holds for any function of them, margins with their maxima included.
Problems are the unit, as they are for standard errors, and all points of a problem are swapped together, so their
correlation is kept.

Many quantities are tested at once. The largest of all standardised changes in each repetition gives one critical
value for all of them (Westfall and Young, Resampling-Based Multiple Testing, 1993, single-step maxT): the probability
that any quantity at all is called changed when none is, is at most 1 - confidence, whatever their correlation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SWAPS = 4000
_EQUAL = 1e-9  # changes of a repetition that swaps everything equal the measured ones only up to rounding


class Changes(NamedTuple):
    """Changes of quantities that share their problems.

    Attributes:
        values: (swaps, quantities); row 0 is what was measured. NaN where a quantity does not exist.
        n: Number of problems.
        full: The largest change that a problem can have, 100 points of accuracy; 0 if there is no such bound.
    """

    values: Floats
    n: int
    full: float = 0.0


class ChangeInterval(NamedTuple):
    """A change with its simultaneous interval.

    Attributes:
        change: What was measured; NaN if it does not exist.
        low: Lower end, -inf if there are too few problems to say.
        high: Upper end.
        significant: Whether the interval excludes no change.
    """

    change: float
    low: float
    high: float
    significant: bool


def draw_signs(n: int, swaps: int, seed: Sequence[int]) -> Floats:
    """(swaps + 1, n): -1 where a problem is swapped, else 1; row 0 swaps nothing."""
    bits = np.random.default_rng(seed).integers(0, 2, size=(swaps, n))
    return np.vstack([np.ones(n), 2.0 * bits - 1])


def simultaneous_intervals(groups: Sequence[Changes], confidence: float) -> list[list[ChangeInterval]]:
    """Simultaneous intervals of all quantities of all groups.

    A change is standardised by its root mean square over swaps, u = change / sigma. The interval is the usual one,
    change ± c' times the standard error over problems (for a mean: the standard deviation of the paired differences /
    sqrt(n)), with c' such that it excludes 0 exactly if |u| exceeds the critical value c; for a mean that is
    c' = c sqrt((n - 1) / (n - c²)).

    Where no problem differs, as where all are right before and after, that would be an interval without width, which no
    sample of problems can give. There one problem each way is added (Bonett and Price 2012, for paired proportions):
    change ± c full sqrt(2) / (n + 2).

    Args:
        groups: Independent groups (tasks), each with equally many swaps.
        confidence: Of the whole family, in (0, 1).
    """
    standard = []
    for values, *_ in groups:
        sigma = spread(values)
        # A quantity that no swap changes (sigma 0), or that does not exist (NaN), counts as unchanged.
        u = np.divide(values, sigma, out=np.zeros_like(values), where=sigma > 0)
        standard.append(np.nan_to_num(u, nan=0.0))
    # maxT: in each swap only the largest of all changes counts, and its distribution gives one critical value for all.
    largest = np.max([np.abs(u).max(axis=1, initial=0.0) for u in standard], axis=0)
    critical = float(np.sort(largest)[int(np.ceil(confidence * len(largest))) - 1]) + _EQUAL
    return [
        [
            _interval(float(group.values[0, k]), float(s), float(u[0, k]), critical, group)
            for k, s in enumerate(spread(group.values))
        ]
        for group, u in zip(groups, standard, strict=True)
    ]


def spread(values: Floats) -> Floats:
    """(quantities,), root mean square over swaps; NaN if in most swaps a quantity does not exist.

    Around 0, not around the mean: swapping a problem turns its sign, so changes by chance are symmetric about 0.
    """
    exists = np.isfinite(values)
    count = exists.sum(axis=0)
    squares = np.where(exists, values, 0.0) ** 2
    sigma = np.sqrt(squares.sum(axis=0) / np.maximum(count, 1))
    return np.where(2 * count >= len(values), sigma, np.nan)


def _interval(change: float, sigma: float, u: float, critical: float, group: Changes) -> ChangeInterval:
    n = group.n
    if not np.isfinite(change) or not np.isfinite(sigma):
        return ChangeInterval(float("nan"), float("nan"), float("nan"), False)
    # With so few problems that even n equal falls reach only |u| = sqrt(n), nothing can be told: an endless interval.
    if critical**2 >= n:
        half = float("inf") if sigma else 0.0
    elif not sigma:
        half = critical * group.full * float(np.sqrt(2)) / (n + 2)
    else:
        # sigma² holds the change itself: for a mean, n sigma² - change² is (n - 1) times its squared standard error.
        half = critical * float(np.sqrt(max(n * sigma**2 - change**2, 0.0) / (n - critical**2)))
    return ChangeInterval(change, change - half, change + half, abs(u) > critical)
