from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_samples import chains, points, points_table, sample

from hyperscale.analysis.bootstrap import Bootstrap, make_bootstraps
from hyperscale.analysis.frontier import area, drop_sparse_points, evaluate, find_frontiers, frontier_points
from hyperscale.analysis.margins import compute_margins, parse_pairs
from hyperscale.errors import ResultsError

POINT = st.tuples(st.floats(1, 1000), st.floats(0, 100))
POINTS = st.lists(POINT, min_size=1, max_size=12)


def reach(pairs, cost):
    """The frontier by its definition, one cost at a time."""
    kept = []
    for x, y in sorted(pairs, key=lambda p: (p[0], -p[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    if cost < kept[0][0] or cost > max(x for x, _ in pairs):
        return np.nan
    for (x0, y0), (x1, y1) in pairwise(kept):
        if x0 <= cost < x1:
            return y0 + (y1 - y0) * (cost - x0) / (x1 - x0)
    return kept[-1][1]


def margin(points, a, b, axis, n_boot, seed=0):
    """One margin, of the points of one model and task."""
    (bootstrap,) = make_bootstraps(points, n_boot, seed).values()
    (result,) = compute_margins([bootstrap], [(a, b)], [axis])
    return result


def band(points, axis, at, n_boot):
    """The band of the points' only method."""
    bootstrap = Bootstrap(points, n_boot)
    (method,) = bootstrap.points
    return bootstrap.confidence_band(method, axis, at)


def arrays(pairs):
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])


@given(POINTS, st.lists(st.floats(0.5, 1100), min_size=1, max_size=5))
def test_the_frontier_is_the_best_accuracy_at_or_under_each_cost(pairs, costs):
    values = evaluate(find_frontiers(*arrays(pairs)), np.array(costs))
    assert values == pytest.approx([reach(pairs, c) for c in costs], nan_ok=True, abs=1e-6)
    for x, y in pairs:  # never below a measured point
        assert evaluate(find_frontiers(*arrays(pairs)), np.array([x]))[0] >= y - 1e-6


@given(POINTS, st.floats(0, 1), st.floats(0, 1))
def test_the_area_in_closed_form_is_the_integral(pairs, u, v):
    x, y = arrays(pairs)
    # Rounding must not carry the end beyond the last point, where there is no frontier.
    low, high = (min(x.min() + t * (x.max() - x.min()), x.max()) for t in sorted((u, v)))
    grid = np.linspace(low, high, 20_001)
    dense = np.trapezoid(evaluate(find_frontiers(x, y), grid), grid)
    exact = area(find_frontiers(x, y), np.asarray(low), np.asarray(high))
    # A jump between two points of nearly equal cost costs the numerical integral up to half a step of height 100.
    assert exact == pytest.approx(dense, abs=100 * (high - low) / 20_000 * len(pairs) + 1e-6)


@given(st.lists(POINTS.filter(lambda p: len(p) >= 3), min_size=2, max_size=4))
def test_rows_of_a_batch_do_not_mix(batch):
    n = min(map(len, batch))
    x, y = np.array([arrays(p[:n])[0] for p in batch]), np.array([arrays(p[:n])[1] for p in batch])
    at = np.array([1.0, 10.0, 500.0])
    together = evaluate(find_frontiers(x, y), at)
    ends = x.min(axis=1), x.max(axis=1)
    for i in range(len(batch)):
        alone = find_frontiers(x[i], y[i])
        np.testing.assert_array_equal(together[i], evaluate(alone, at))
        assert area(find_frontiers(x, y), *ends)[i] == area(alone, ends[0][i], ends[1][i])


def test_points_that_do_not_exist_change_nothing():
    e = find_frontiers(np.array([4.0, np.nan, 1.0, np.inf, 2.0]), np.array([50.0, 90.0, 10.0, 99.0, np.nan]))
    assert evaluate(e, np.array([1.0, 2.5, 4.0])) == pytest.approx([10, 30, 50])
    assert e.max_cost == 4
    assert e.on_frontier.sum() == 2


def test_frontier_lists_improving_points_by_cost_and_unites_compression_ratios():
    lines = [
        sample(answer="2", tokens=100),
        sample(method="dms", CR=8.0, answer="1", tokens=200),
        sample(method="dms", CR=4.0, answer="2", tokens=100),
        sample(method="dms", CR=2.0, answer="2", tokens=400),
    ]
    longest = [point for point in points(lines) if point.L == 2048]
    best = frontier_points(longest, "kv_reads")
    assert [(point.series.method, point.series.CR) for point in best] == [("vanilla", 1), ("dms", 4), ("dms", 8)]
    assert frontier_points([], "tokens") == []
    with pytest.raises(ResultsError, match="known axes: kv_reads"):
        frontier_points(longest, "euros")


def test_points_of_an_interrupted_run_make_no_frontier():
    lines = [sample(f"p{p}", 0, answer="2", task="mini_lcb") for p in range(20)]
    lines += [sample(f"p{p}", 1, task="mini_lcb") for p in range(17)]
    assert {point.W for point in points(lines)} == {1, 2}
    assert {point.W for point in frontier_points(points(lines), "kv_reads")} == {1}
    lines += [sample(f"p{p}", 1, task="mini_lcb") for p in range(17, 19)]
    assert {point.W for point in frontier_points(points(lines), "kv_reads")} == {1, 2}


def test_points_of_few_problems_join_no_frontier_of_many():
    """Neither those of a CR that an interruption left with a few quick chains, nor those of a short run beside it."""
    full = [sample(f"p{p}", answer="2", method="dms", CR=2.0, tokens=400) for p in range(20)]
    lucky = [sample(f"p{p}", method="dms", CR=8.0, tokens=100) for p in range(3)]
    brief = [sample(f"p{p}", method="dms", CR=2.0, tokens=100) for p in range(3)]
    vanilla = [sample(f"p{p}", answer="2") for p in range(20)]
    measured = points(full + lucky + vanilla) + points(brief, run="brief")
    best = frontier_points(measured, "kv_reads")
    assert {len(point.problems) for point in best} == {20}
    assert margin(measured, "dms", "vanilla", "kv_reads", n_boot=10).n_problems == 20
    assert {len(point.problems) for point in drop_sparse_points(measured)} == {20}


def two_methods(**more):
    return chains("vanilla", 1, **more) + chains("dms", 8, skill=0.05, seed=0, **more)


def test_the_margin_is_the_area_between_two_frontiers_over_the_common_interval():
    lines = two_methods()
    table = points_table(lines)
    m = margin(points(lines), "dms", "vanilla", "kv_reads", n_boot=50)
    of = {name: list(zip(t.kv_reads, t.accuracy, strict=True)) for name, t in table.groupby("method")}
    low = max(min(x for x, _ in pairs) for pairs in of.values())
    high = min(max(x for x, _ in pairs) for pairs in of.values())
    assert m.common_costs == pytest.approx((low, high))
    grid = np.linspace(low, high, 4001)
    assert m.linear == pytest.approx(np.mean([reach(of["dms"], c) - reach(of["vanilla"], c) for c in grid]), abs=0.1)
    of = {name: [(np.log2(x), y) for x, y in pairs] for name, pairs in of.items()}
    grid = np.linspace(np.log2(low), np.log2(high), 4001)
    assert m.log2 == pytest.approx(np.mean([reach(of["dms"], c) - reach(of["vanilla"], c) for c in grid]), abs=0.1)
    assert m.log2 > 10
    assert m.n_problems == 40


def test_a_margin_reversed_is_its_negative_and_over_itself_is_zero():
    lines = points(two_methods())
    m, r = (margin(lines, *pair, "peak_kv", n_boot=50) for pair in (("dms", "vanilla"), ("vanilla", "dms")))
    assert (r.linear, r.log2) == pytest.approx((-m.linear, -m.log2))
    assert r.log2_ci == pytest.approx((-m.log2_ci[1], -m.log2_ci[0]))
    same = margin(lines, "dms", "dms", "peak_kv", n_boot=50)
    assert (same.linear, *same.log2_ci) == (0, 0, 0)  # the same problems are drawn for both


def test_the_bootstrap_recomputes_points_and_frontiers():
    """Row by row, a resample is the margin of a data set in which each problem stands as often as it was drawn."""
    lines = two_methods(problems=10, width=4)
    m = margin(points(lines), "dms", "vanilla", "kv_reads", n_boot=7, seed=3)
    drawn = np.random.default_rng(3).multinomial(10, np.full(10, 1 / 10), size=7)
    values = []
    for counts in drawn:
        copies = [
            replace(line, problem=f"{line.problem}/{i}") for line in lines for i in range(counts[int(line.problem[1:])])
        ]
        values.append(margin(points(copies), "dms", "vanilla", "kv_reads", n_boot=2).log2)
    low, high = np.percentile(values, [2.5, 97.5])
    bias = np.mean(values) - m.log2  # the interval is extended on the side to which it points
    assert abs(bias) > 1
    assert m.log2_ci == pytest.approx((min(low, low - 2 * bias), max(high, high - 2 * bias)))


def test_intervals_cover_and_narrow_with_more_problems():
    few, many = (
        margin(points(two_methods(problems=n)), "dms", "vanilla", "kv_reads", n_boot=300).log2_ci for n in (20, 160)
    )
    assert few[0] < many[1]
    assert many[0] < few[1]
    assert many[1] - many[0] < 0.6 * (few[1] - few[0])


def test_margins_are_reproducible_by_seed():
    lines = points(two_methods(problems=20))
    a, b, c = (margin(lines, "dms", "vanilla", "kv_reads", n_boot=99, seed=s) for s in (0, 0, 1))
    assert a == b
    assert a.log2 == c.log2
    assert a.log2_ci != c.log2_ci


def test_frontiers_that_do_not_meet_have_no_margin():
    lines = [sample(f"p{p}") for p in range(5)] + [sample(f"p{p}", method="dms", CR=100.0) for p in range(5)]
    m = margin(points(lines), "dms", "vanilla", "kv_reads", n_boot=20)
    assert np.isnan([m.linear, *m.linear_ci, m.log2, *m.log2_ci, *m.common_costs]).all()
    apart = [sample("a"), sample("b", method="dms", CR=2.0)]
    m = margin(points(apart), "dms", "vanilla", "kv_reads", n_boot=20)
    assert np.isnan(m.linear)
    assert m.n_problems == 0


def test_only_problems_of_both_methods_count():
    lines = chains("vanilla", 1, problems=30) + [
        line for line in chains("dms", 8, problems=30) if int(line.problem[1:]) % 2
    ]
    m = margin(points(lines), "dms", "vanilla", "kv_reads", n_boot=20)
    odd = [line for line in lines if int(line.problem[1:]) % 2]
    assert m == margin(points(odd), "dms", "vanilla", "kv_reads", n_boot=20)
    assert m.n_problems == 15


def test_methods_that_share_no_task_or_no_model_have_no_margin():
    lines = two_methods(problems=4, width=1)
    for name, value in (("task", "mini_gpqa"), ("model", "big")):
        apart = [replace(line, **{name: value}) if line.method == "dms" else line for line in lines]
        bootstraps = list(make_bootstraps(points(apart), n_boot=10).values())
        assert len(bootstraps) == 2
        assert compute_margins(bootstraps) == []
        with pytest.raises(ResultsError, match=r"no margin dms:vanilla: no task has chains of both.*vanilla, dms"):
            compute_margins(bootstraps, [("dms", "vanilla")])


def test_the_band_holds_the_frontier_where_it_exists():
    part = points(chains("dms", 8, problems=60))
    table = points_table(chains("dms", 8, problems=60))
    low, high = np.log2(table.kv_reads.min()), np.log2(table.kv_reads.max())
    at = 2 ** np.linspace(low, high, 9)
    lower, upper = band(part, "kv_reads", at, n_boot=200)
    middle = evaluate(find_frontiers(np.log2(table.kv_reads.to_numpy()), table.accuracy.to_numpy()), np.log2(at))
    assert (lower[1:-1] <= middle[1:-1] + 2).all()
    assert (middle[1:-1] <= upper[1:-1]).all()
    assert np.isnan(band(part, "kv_reads", np.array([1.0]), n_boot=50)[0]).all()


def test_the_band_never_falls_even_where_two_points_cost_nearly_the_same():
    (one, *_) = points(chains("dms", 8, problems=40))
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 20, 40)
    noise -= noise.mean()
    found = [
        replace(one, L=L, accuracy=(rng.random(40) < chance).astype(float), costs={"kv_reads": reads})
        for L, reads, chance in (
            (512, np.full(40, 300.0), 0.3),
            (1024, 1000 + noise, 0.7),
            (2048, 1001 - noise, 0.4),
            (4096, np.full(40, 2000.0), 0.7),
        )
    ]
    at = np.geomspace(310, 1900, 40)
    lower, upper = band(found, "kv_reads", at, n_boot=200)
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) >= 0).all()
    mixed = rng.permutation(40)
    for end, expected in zip(band(found, "kv_reads", at[mixed], n_boot=200), (lower, upper), strict=True):
        np.testing.assert_array_equal(end, expected[mixed])


@pytest.mark.timeout(60)
def test_a_thousand_resamples_of_forty_points_and_two_hundred_problems():
    lines = chains("vanilla", 1, problems=200, width=8) + [
        line for cr in (2, 4, 8) for line in chains("dms", cr, problems=200, width=8)
    ]
    made = points(lines)
    assert sum(cell.series.method == "dms" for cell in made) == 48
    m = margin(made, "dms", "vanilla", "kv_reads", n_boot=1000)
    assert m.log2_ci[0] < m.log2 < m.log2_ci[1]


def test_frontiers_are_made_once_and_give_what_each_margin_and_band_alone_gives():
    lines = [*two_methods(problems=24, width=4), *chains("window", 4, problems=16, width=4, skill=-0.2)]
    found = points(lines)
    (made,) = make_bootstraps(found, n_boot=80).values()
    together = compute_margins([made], [("dms", "vanilla"), ("dms", "window"), ("window", "vanilla")])
    assert len(together) == 18
    assert {(m.a, m.b, m.n_problems) for m in together} == {
        ("dms", "vanilla", 24),
        ("dms", "window", 16),  # each pair on the problems that both have
        ("window", "vanilla", 16),
    }
    for m in together:
        assert m == margin(found, m.a, m.b, m.axis, n_boot=80)
    at = np.geomspace(2e4, 1e6, 30)
    alone = band([cell for cell in found if cell.series.method == "dms"], "kv_reads", at, n_boot=80)
    np.testing.assert_array_equal(made.confidence_band("dms", "kv_reads", at), alone)


def test_every_method_over_vanilla_unless_pairs_are_named():
    lines = [line for task in ("mini_aime", "mini_gpqa") for line in two_methods(problems=12, width=2, task=task)]
    lines += chains("window", 4, problems=12, width=2)
    made = list(make_bootstraps(points(lines), n_boot=10).values())
    found = compute_margins(made, axes=["tokens"])
    assert [(m.task, m.a, m.b) for m in found] == [
        ("mini_aime", "dms", "vanilla"),
        ("mini_aime", "window", "vanilla"),
        ("mini_gpqa", "dms", "vanilla"),
    ]
    assert [(m.task, m.a, m.b) for m in compute_margins(made, [("dms", "window")], ["tokens"])] == [
        ("mini_aime", "dms", "window")
    ]
    with pytest.raises(ResultsError, match=r"no margin dms:quest: no task has chains of both.*vanilla, dms, window"):
        compute_margins(made, [("dms", "vanilla"), ("dms", "quest")])
    with pytest.raises(ResultsError, match="unknown axis"):
        compute_margins(made, axes=["euros"])


def test_models_have_margins_of_their_own():
    lines = [line for name in ("small", "large") for line in two_methods(problems=12, width=2, model=name)]
    found = compute_margins(make_bootstraps(points(lines), n_boot=10).values(), axes=["tokens"])
    assert [m.model for m in found] == ["small", "large"]


@pytest.mark.parametrize("problems", [1, 9, 10])
def test_fewer_than_ten_problems_have_a_margin_without_an_interval(problems):
    lines = [
        sample(f"p{p}", 0, method, cr, "1" if (p + cr) % 3 else "2", tokens=tokens)
        for p in range(problems)
        for method, cr in (("vanilla", 1.0), ("dms", 2.0))
        for tokens in (300,)
    ]
    m = margin(points(lines), "dms", "vanilla", "tokens", n_boot=200)
    assert m.n_problems == problems
    assert m.has_enough_problems == (problems == 10)
    assert np.isfinite([m.linear, m.log2]).all()
    assert np.isfinite([*m.linear_ci, *m.log2_ci]).all() == m.has_enough_problems
    at = np.array([280.0])
    assert np.isfinite(band(points(lines)[:4], "tokens", at, n_boot=50)[0]).all() == m.has_enough_problems


@pytest.mark.parametrize("text", ["dms", "dms:", ":dms", "dms:dms", "dms:vanilla,", "a:b:c", ""])
def test_pairs_are_written_with_a_colon(text):
    with pytest.raises(ResultsError, match=r"e\.g\. dms:vanilla,dms:window"):
        parse_pairs(text)
    assert parse_pairs("dms:vanilla, window : dms") == [("dms", "vanilla"), ("window", "dms")]
    press, other = "kvpress:DecodingPress:AdaKVPress:KnormPress", "kvpress:DecodingPress:TOVAPress"
    for pair in ((press, "vanilla"), ("vanilla", press), (press, other)):
        assert parse_pairs(":".join(pair)) == [pair]


def test_intervals_cover_the_true_margin():
    """Two methods with two points each, far apart, so that the maximum over points hardly biases the margin of 20."""
    inside = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        lines = []
        for p in range(60):
            hard = rng.beta(2, 2)
            for method, gain in (("vanilla", 0.0), ("dms", 0.2)):
                for cr, start in ((4.0, 0.0), (1.0, 0.35)):
                    right = rng.random() < start + 0.3 * hard + gain
                    lines.append(sample(f"p{p}", 0, method, cr, "1" if right else "2", tokens=200))
        m = margin(points(lines), "dms", "vanilla", "kv_reads", n_boot=200, seed=trial)
        inside += m.log2_ci[0] <= 20 <= m.log2_ci[1]
    assert inside >= 33
