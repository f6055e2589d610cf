"""Compares two points problem by problem: the difference of their accuracies, with its interval.

Both answered the same problems, so what counts is how the difference varies from problem to problem: hard problems are
hard for both. The interval is the normal one of a paired mean with one problem added that differs each way (Bonett and
Price 2012, for paired proportions; here also for shares of several chains). So it has a width where all problems agree,
and is not too narrow with few: simulated, it covers the truth in 94 to 99 % of samples of 10 to 200 problems
(``tests/analysis/test_differences.py``).
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.results.intervals import MIN_PROBLEMS, Z
from hyperscale.results.points import MeasuredPoint


class Difference(NamedTuple):
    """By how many points of accuracy one point lies above another.

    Attributes:
        value: Mean over the problems of both, in percentage points; NaN if they have none in common.
        low: Lower end of its 95 % interval; NaN with fewer than `MIN_PROBLEMS` problems.
        high: Upper end.
        n_problems: Problems of both.
    """

    value: float
    low: float
    high: float
    n_problems: int

    @property
    def has_interval(self) -> bool:
        """Whether there are enough problems for an interval."""
        return self.n_problems >= MIN_PROBLEMS

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_difference(
    a: MeasuredPoint, b: MeasuredPoint, problems: Collection[str] | None = None, z: float = Z
) -> Difference:
    """Accuracy of ``a`` less that of ``b`` on the problems of both, or on those among ``problems`` alone.

    ``z`` is how many standard errors the interval reaches: more than for 95 % where it has to hold for several at once.
    """
    of_b = dict(zip(b.problems, b.accuracy, strict=True))
    pairs = zip(a.problems, a.accuracy, strict=True)
    chosen = None if problems is None else set(problems)
    return interval_of_differences(
        np.array([x - of_b[name] for name, x in pairs if name in of_b and (chosen is None or name in chosen)]), z
    )


def interval_of_differences(differences: NDArray[np.float64], z: float = Z) -> Difference:
    """The mean of (n,) differences of shares, each in [-1, 1], with its interval, in percentage points."""
    n = len(differences)
    if not n:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    value = float(differences.mean())
    if n < MIN_PROBLEMS:
        return Difference(100 * value, float("nan"), float("nan"), n)
    # One problem of +1 and one of -1 are added.
    middle = float(differences.sum()) / (n + 2)
    squares = float(((differences - middle) ** 2).sum()) + (1 - middle) ** 2 + (1 + middle) ** 2
    half = z * float(np.sqrt(squares)) / (n + 2)
    low, high = max(min(middle - half, value), -1.0), min(max(middle + half, value), 1.0)
    return Difference(100 * value, 100 * low, 100 * high, n)
