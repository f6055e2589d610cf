"""The interval of an accuracy: Wilson's where every problem has one chain, honest at 0 % and 100 %, none of few."""

import numpy as np
import pytest
from rich.console import Console
from synthetic_samples import chains, points, sample

from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.curves import analyse
from hyperscale.analysis.margins import compute_margins
from hyperscale.cli.display.result_tables import print_frontiers
from hyperscale.results.intervals import MIN_PROBLEMS, equal_interval, wilson_interval
from hyperscale.results.points import table


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, table I, method 3, and the closed form n / (n + z²) at the ends
    [
        *((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)),
        *((32, 32, 0.8928, 1.0), (0, 32, 0.0, 0.1072), (10, 10, 0.7225, 1.0), (29, 30, 0.8333, 0.9941)),
    ],
)
def test_one_chain_a_problem_is_wilsons(right, n, low, high):
    verdicts = np.array([1.0] * right + [0.0] * (n - right))
    assert wilson_interval(verdicts) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(1 - verdicts) == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_it_is_never_without_width_and_holds_the_accuracy():
    rng = np.random.default_rng(0)
    for chains_ in (1, 2, 8, 64):
        for mean in (0.0, 0.01, 0.5, 0.99, 1.0):
            accuracy = rng.binomial(chains_, np.full(30, mean)) / chains_
            low, high = wilson_interval(accuracy)
            assert 0 <= low <= accuracy.mean() <= high <= 1
            assert high - low > 0.03


def test_many_chains_of_like_problems_know_more_than_one():
    """The variance between problems counts: of problems that are alike, chains are nearly independent."""
    alike, ends = np.full(100, 0.5), np.array([0.0, 1.0] * 50)
    widths = [high - low for low, high in map(wilson_interval, (alike, ends))]
    assert widths[0] < 0.3 * widths[1]
    assert widths[1] == pytest.approx(0.192, abs=0.001)
    nearly = np.array([1.0] * 29 + [7 / 8])
    assert wilson_interval(nearly)[0] == pytest.approx(wilson_interval(np.ones(30))[0], abs=0.01), "no jump at the end"


def test_too_few_problems_have_none():
    assert np.isnan(wilson_interval(np.ones(MIN_PROBLEMS - 1))).all()
    assert not np.isnan(wilson_interval(np.ones(MIN_PROBLEMS))).any()


def test_it_holds_the_truth_as_often_as_it_says():
    """Simulated, over accuracies and chains; one extreme accuracy may be missed more often, as Wilson's is."""
    found = []
    for mean in (0.05, 0.3, 0.7, 0.95, 0.98):
        for width, spread in ((1, 2.0), (8, 0.5), (8, 50.0)):
            rng = np.random.default_rng([int(100 * mean), width, int(spread)])
            chance = rng.beta(mean * spread, (1 - mean) * spread, (300, 40))
            accuracy = rng.binomial(width, chance) / width
            found.append(np.mean([low <= mean <= high for low, high in map(wilson_interval, accuracy)]))
    assert min(found) > 0.9
    assert np.mean(found) > 0.945


def perfect(right, problems=24, method="vanilla"):
    answer = "1" if right else "2"
    found = [sample(f"p{p}", c, method, answer=answer, tokens=100 + p) for p in range(problems) for c in (0, 1)]
    return points(found)


@pytest.mark.parametrize(("right", "accuracy", "ends"), [(True, 100, (86.2, 100)), (False, 0, (0, 13.8))])
def test_all_right_and_all_wrong_are_uncertain_everywhere(right, accuracy, ends):
    made = perfect(right)
    row = table(made).query("L == 2048 and W == 1").iloc[0]
    assert row.accuracy == accuracy
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx(ends, abs=0.05)
    assert np.isnan(row.accuracy_se)
    console = Console(record=True, width=200)
    print_frontiers(made, "kv_reads", console)
    text = console.export_text()
    assert "±" not in text
    if right:
        assert "100.0 [86, 100]" in text
    (curve,) = analyse(made, ["kv_reads"], n_boot=100).curves["kv_reads"]
    known = np.flatnonzero(np.isfinite(curve.low))
    assert len(known) > 10
    assert {(low, high) for low, high in zip(curve.low[known].round(1), curve.high[known].round(1), strict=True)} == {
        ends
    }


def test_few_problems_stand_alone_in_the_table():
    console = Console(record=True, width=200)
    print_frontiers(perfect(True, problems=9), "kv_reads", console)
    text = console.export_text()
    assert "100.0" in text
    assert "[" not in text
    assert table(perfect(True, problems=9)).accuracy_low.isna().all()


def test_two_methods_that_are_always_right_may_differ():
    made = [*perfect(True), *perfect(True, method="window")]
    (margin,) = compute_margins(make_bootstraps(made, 100).values(), axes=["kv_reads"])
    assert margin.linear == 0
    assert margin.linear_ci == pytest.approx((-100 * equal_interval(24), 100 * equal_interval(24)))
    assert 8 < margin.linear_ci[1] < 15


def test_a_usual_point_has_the_interval_of_its_problems():
    made = points(chains("vanilla", 1, problems=40, width=4))
    for point in made:
        row = point.row()
        assert (row["accuracy_low"], row["accuracy_high"]) == tuple(100 * end for end in point.interval)
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
