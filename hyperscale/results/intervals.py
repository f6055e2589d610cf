"""Intervals of an accuracy over problems, which are honest at 0 % and 100 % too.

The standard error of a mean is 0 where every problem has the same verdict: 24 right answers to 24 problems would be
100 ± 0 %. Wilson's score interval (Wilson 1927) has no such place: it holds every true accuracy that such a sample is
likely under. Its n is that of independent verdicts. Ours are clustered: the chains of a problem, over which its own
accuracy is a mean, are alike. So n is divided by the design effect, as for surveys (Franco, Little, Louis and Slud,
Journal of Survey Statistics and Methodology 7, 2019): the variance between the problems' accuracies / that of one
verdict a problem, p (1 - p). With one chain a problem it is 1, with many chains of problems that are alike it is small.

The design effect of a sample is itself uncertain, and undefined where all is right or wrong. As Agresti and Coull
(1998) do for p, z² / 2 right and as many wrong problems are added before it is estimated: it is then 1 where nothing
varies, and close to 1 where next to nothing does.

``python benchmarks/accuracy_coverage.py`` measures how often the interval holds the truth
(results/measurements/intervals.md).
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: With fewer problems there is no interval: it would be next to the whole range, and resamples of so few are alike.
MIN_PROBLEMS = 10
CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class AccuracyInterval(NamedTuple):
    """Ends of an interval, as shares; NaN where there are too few problems for one."""

    low: float
    high: float


NO_INTERVAL = AccuracyInterval(float("nan"), float("nan"))


def wilson_interval(accuracy: NDArray[np.float64], confidence: float = CONFIDENCE) -> AccuracyInterval:
    """Wilson's score interval of a mean over problems, with the design effect of their chains.

    Args:
        accuracy: (n,), of each problem, in [0, 1].
        confidence: In (0, 1).

    Returns:
        The ends in [0, 1], around the mean; NaN with fewer than `MIN_PROBLEMS` problems.
    """
    n = len(accuracy)
    if n < MIN_PROBLEMS:
        return NO_INTERVAL
    z = Z if confidence == CONFIDENCE else NormalDist().inv_cdf((1 + confidence) / 2)
    p = float(accuracy.mean())
    return score_interval(p, n / design_effect(accuracy, z), z)


def score_interval(p: float, size: float, z: float = Z) -> AccuracyInterval:
    """Wilson's score interval of a share of so many independent verdicts, around the share."""
    # The true shares q of which p is no more than z standard errors away: |p - q| <= z sqrt(q (1 - q) / size).
    middle = (p + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * float(np.sqrt(max(p * (1 - p), 0.0) / size + z**2 / (4 * size**2)))
    return AccuracyInterval(min(max(middle - half, 0.0), p), max(min(middle + half, 1.0), p))


def equal_interval(problems: int) -> float:
    """How far a difference of two shares may lie from 0, where it is 0 on each of so many problems.

    One problem is added that differs each way (Bonett and Price 2012, for paired proportions).
    """
    return float(Z * np.sqrt(2) / (problems + 2))


def design_effect(accuracy: NDArray[np.float64], z: float) -> float:
    """Variance of problems' accuracies / that of one verdict a problem, in (0, 1]; z² / 2 of each kind are added."""
    added = z**2 / 2
    n = len(accuracy) + 2 * added
    p = (float(accuracy.sum()) + added) / n
    squares = float(((accuracy - p) ** 2).sum()) + added * ((1 - p) ** 2 + p**2)
    return min(squares / n / (p * (1 - p)), 1.0)
