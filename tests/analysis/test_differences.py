"""Paired differences: exact where they can be worked out by hand, and intervals that hold the truth."""

import numpy as np
import pytest
from synthetic_samples import points, sample

from hyperscale.analysis.differences import interval_of_differences, paired_difference
from hyperscale.results.intervals import equal_interval


def single(method, right, problems):
    """A point of one chain on each problem."""
    lines = [sample(f"p{p}", method=method, right=p in right, tokens=100) for p in problems]
    return next(point for point in points(lines) if (point.W, point.L) == (1, 256))


def test_the_difference_is_that_of_the_problems_of_both():
    a, b = single("dms", set(range(12)), range(20)), single("vanilla", {0, 1, 2, 15}, range(5, 25))
    difference = paired_difference(a, b)
    # Problems 5 to 19: seven right for a alone (5 to 11), one for b alone (15).
    assert difference.n_problems == 15
    assert difference.value == pytest.approx(100 * 6 / 15)
    assert difference.decided
    back = paired_difference(b, a)
    assert (back.value, back.low, back.high) == pytest.approx((-difference.value, -difference.high, -difference.low))
    some = paired_difference(a, b, ["p15", "p16"])
    assert (some.value, some.n_problems, some.has_interval, some.decided) == (-50, 2, False, False)
    assert np.isnan(paired_difference(a, b, ["p0"]).value)


def test_problems_that_all_agree_leave_a_width():
    difference = interval_of_differences(np.zeros(30))
    assert (difference.value, -difference.low) == pytest.approx((0, difference.high))
    assert difference.high == pytest.approx(100 * equal_interval(30))


@pytest.mark.parametrize("problems", [10, 30, 120])
@pytest.mark.parametrize("chains", [1, 4])
def test_the_interval_holds_the_truth(problems, chains):
    """Problems of unlike difficulty, of which one method loses a tenth: their mean loss is the truth."""
    rng = np.random.default_rng([problems, chains])
    held, widths = [], []
    for _ in range(1000):
        easy = rng.beta(1.5, 1.0, problems)
        a, b = (rng.binomial(chains, p) / chains for p in (0.9 * easy, easy))
        difference = interval_of_differences(a - b)
        held.append(difference.low <= -100 * 0.1 * 0.6 <= difference.high)
        widths.append(difference.high - difference.low)
    assert np.mean(held) >= 0.93
    assert np.mean(widths) < 2 * 100 * 1.96 * np.sqrt(2 * 0.25 / problems)  # no wider than of unpaired samples
