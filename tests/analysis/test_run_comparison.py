"""Two runs side by side: which arms meet, and what the rows of both tables hold."""

import pytest
from synthetic_samples import chains, points, sample

from hyperscale.analysis.differences import paired_difference
from hyperscale.analysis.run_comparison import compare_points
from hyperscale.errors import ResultsError
from hyperscale.methods.arm import Arm

VANILLA, DMS4, DMS8, TOVA = Arm("vanilla", 1.0), Arm("dms", 4.0), Arm("dms", 8.0), Arm("tova", 8.0)


def run_of(*arms, run="one", problems=12, width=2, **more):
    return points(
        [line for arm in arms for line in chains(arm.method, arm.CR, problems=problems, width=width, **more)], run=run
    )


def arms_that_meet(*arguments, **more):
    return [(each.b, each.a) for each in compare_points(*arguments, **more)]


def test_arms_meet_their_like_of_the_other_run_or_vanilla():
    first, second = run_of(VANILLA, DMS8), run_of(VANILLA, DMS8, DMS4, run="two", seed=1)
    assert arms_that_meet(first, second) == [(VANILLA, VANILLA), (DMS4, VANILLA), (DMS8, DMS8)]
    assert arms_that_meet(first, first) == [(DMS8, VANILLA)]  # not with themselves
    assert arms_that_meet(run_of(DMS8), run_of(TOVA, run="two")) == [(TOVA, DMS8)]  # the only one there is
    several = run_of(VANILLA, DMS4, DMS8)
    assert arms_that_meet(several, several, pairs=[("dms", "dms")]) == [(DMS4, DMS8), (DMS8, DMS4)]
    assert arms_that_meet(first, run_of(TOVA, run="two"), pairs=[("tova", "dms")]) == [(TOVA, DMS8)]


def test_runs_of_one_name_are_two_unless_their_points_are_the_same():
    first, second = run_of(VANILLA, DMS8), run_of(VANILLA, DMS8, seed=1)  # before/one and after/one
    assert arms_that_meet(first, second) == [(VANILLA, VANILLA), (DMS8, DMS8)]
    assert arms_that_meet(first, run_of(VANILLA, DMS8)) == [(DMS8, VANILLA)]  # read twice
    assert arms_that_meet(first, run_of(VANILLA, DMS8), same=False) == [(VANILLA, VANILLA), (DMS8, DMS8)]
    assert arms_that_meet(first, run_of(VANILLA, DMS8, run="two"), same=True) == [(DMS8, VANILLA)]


def test_nothing_in_common_is_refused():
    other_task, other_problems = run_of(VANILLA, task="mini_lcb", run="two"), [sample("z", tokens=100)]
    for second in (other_task, points(other_problems, run="three")):
        with pytest.raises(ResultsError, match=r"nothing to compare.*the first has vanilla on mini_aime"):
            compare_points(run_of(VANILLA), second)
    with pytest.raises(ResultsError, match=r"nothing to compare.*--pair dms:vanilla"):
        compare_points(run_of(VANILLA), run_of(DMS8, run="two"), pairs=[("quest", "vanilla")])
    with pytest.raises(ResultsError, match="unknown axis 'euros'"):
        compare_points(run_of(VANILLA), run_of(VANILLA), "euros")


def test_points_of_equal_size_are_compared_on_the_problems_of_both():
    first, second = run_of(VANILLA, problems=20), run_of(DMS8, problems=14, run="two", skill=0.2)
    (comparison,) = compare_points(first, second)
    assert [(pair.a.L, pair.a.W) for pair in comparison.at_equal_size] == sorted({(p.L, p.W) for p in second})
    for pair in comparison.at_equal_size:
        assert (pair.a.L, pair.a.W) == (pair.b.L, pair.b.W)
        assert pair.difference == paired_difference(pair.b, pair.a)
        assert pair.difference.n_problems == 14
        of_a = dict(zip(pair.a.problems, pair.a.accuracy, strict=True))
        assert pair.accuracy_a == pytest.approx(100 * sum(of_a[problem] for problem in pair.b.problems) / 14)
        assert pair.accuracy_b - pair.accuracy_a == pytest.approx(pair.difference.value)
        assert pair.cost_b == pytest.approx(float(pair.b.costs["kv_reads"].mean()))


@pytest.mark.parametrize("axis", ["kv_reads", "tokens"])
def test_at_equal_cost_stands_the_best_that_costs_no_more(axis):
    first, second = run_of(VANILLA, width=4), run_of(DMS8, width=4, run="two")
    (comparison,) = compare_points(first, second, axis)
    assert comparison.at_equal_cost
    for pair in comparison.at_equal_cost:
        cheaper = [p for p in second if p.costs[axis].mean() <= pair.a.costs[axis].mean() * (1 + 1e-9)]
        assert pair.b in cheaper
        assert pair.b.accuracy.mean() == max(p.accuracy.mean() for p in cheaper)
        assert pair.cost_b <= pair.cost_a * (1 + 1e-9)
    # Of frontier points that are cheaper than everything of the other run there is nothing to say.
    (back,) = compare_points(second, first, axis)
    assert len(back.at_equal_cost) < len({p.L for p in second}) * 3


def test_problems_of_one_run_alone_make_none_of_its_points_dearer():
    of_both = chains("vanilla", 1.0, problems=12, width=4)
    others = [sample(f"other{i}", chain=chain, tokens=1000) for i in range(12) for chain in range(4)]
    first, second = points(of_both), points([*of_both, *others], run="two")
    (comparison,) = compare_points(first, second)
    assert len(comparison.at_equal_cost) > 2
    for pair in comparison.at_equal_cost:
        assert (pair.difference.value, pair.difference.n_problems) == (0, 12)
        assert (pair.b.W, pair.b.L) == (pair.a.W, pair.a.L)
        assert pair.cost_b == pytest.approx(pair.cost_a)
