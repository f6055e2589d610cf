"""How often the gate is wrong: false alarms among reruns with other seeds, and falls that it misses."""

from itertools import product

import numpy as np
import pytest
from gate_records import draw

from hyperscale.gate import compare
from hyperscale.gate.swap_test import Changes, draw_signs, simultaneous_intervals

SWAPS = 1000


def changed(found):
    return [row for row in found.rows if row.high < 0 or row.low > 0]


def test_no_more_false_alarms_than_promised_over_all_quantities_together():
    """At 90 %, about one comparison of like with like in ten finds any change at all; far fewer would be no test."""
    runs = 150
    wrong = sum(bool(changed(compare(draw(2 * i), draw(2 * i + 1), 0, 90, swaps=SWAPS))) for i in range(runs))
    assert 0.03 * runs <= wrong <= (0.1 + 3 * np.sqrt(0.09 / runs)) * runs


def test_twenty_reruns_against_one_baseline_stay_green():
    """They share their baseline's luck, so one alarm makes others likelier: several baselines."""
    green = [not any(compare(draw(s), draw(s + i), swaps=SWAPS).falls for i in range(1, 21)) for s in range(0, 80, 20)]
    assert all(green)


@pytest.mark.parametrize("seed", range(5))
def test_a_rerun_with_the_same_seed_has_no_change_at_all(seed):
    found = compare(draw(seed), draw(seed), 0, swaps=SWAPS)
    assert {(row.change, row.low, row.high, row.verdict) for row in found.rows} == {(0.0, 0.0, 0.0, "ok")}


@pytest.mark.parametrize(("problems", "fall", "power"), [(24, 0.35, 0.9), (100, 0.2, 0.95), (24, 0.05, 0.0)])
def test_falls_are_found_and_in_the_method_that_fell(problems, fall, power):
    runs = 30
    found = [
        compare(draw(i, problems), draw(1000 + i, problems, fall={"dms": fall}), swaps=SWAPS).falls for i in range(runs)
    ]
    assert sum(map(bool, found)) >= power * runs
    assert sum(row.method != "dms" for rows in found for row in rows) <= 1
    if power:
        assert any("margin" in row.name for rows in found for row in rows)
    else:
        assert sum(map(bool, found)) < runs / 2, "a fall within the noise should mostly pass"


def test_a_fall_within_the_tolerance_passes_however_sure_it_is():
    old, new = draw(0, 2000, chains=64), draw(1, 2000, chains=64, fall={"dms": 0.02})
    found = compare(old, new, tolerance=5, swaps=SWAPS)
    assert any(row.high < 0 for row in found.rows)
    assert not found.falls
    assert compare(old, new, tolerance=0.5, swaps=SWAPS).falls


def test_an_improvement_never_fails():
    found = compare(draw(0, hard=0.3), draw(1), tolerance=0, swaps=SWAPS)
    assert any(row.low > 0 for row in found.rows)
    assert not found.falls


def test_the_interval_of_a_mean_is_the_usual_one_and_decides_as_the_exact_test_does():
    """Against every one of the 2^n swaps, and against mean ± c' times the standard error."""
    rng = np.random.default_rng(3)
    n = 10
    every = np.array(list(product([1.0, -1.0], repeat=n)))
    assert (every[0] == 1).all()
    for shift in (0.0, 0.4, 0.8, 1.2, 2.0):
        difference = rng.normal(-shift, 1, size=n)
        means = every @ difference / n
        ((found,),) = simultaneous_intervals([Changes(means[:, None], n)], 0.95)
        p = (np.abs(means) >= np.abs(means[0]) - 1e-9).mean()
        # The order statistic at 95 % leaves fewer than 5 % of the swaps beyond it.
        assert found.significant == (p <= 0.05 - 1 / 2**n) or abs(p - 0.05) < 2 / 2**n
        assert found.significant == (not found.low <= 0 <= found.high)
        c = np.sort(np.abs(means))[int(np.ceil(0.95 * len(means))) - 1] / np.sqrt((difference**2).sum()) * n
        half = c * np.sqrt((n - 1) / (n - c**2)) * difference.std(ddof=1) / np.sqrt(n)
        assert (found.low, found.high) == pytest.approx((means[0] - half, means[0] + half))


def test_swaps_are_fair_and_the_first_is_what_was_measured():
    drawn = draw_signs(7, 5000, [1])
    assert (drawn[0] == 1).all()
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn[1:].mean(axis=0)).max() < 0.06
    assert (draw_signs(7, 50, [2]) != draw_signs(7, 50, [3])).any()
