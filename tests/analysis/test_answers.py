"""Answers of samples whose accuracies are known, and their words."""

import dataclasses
import math

import numpy as np
import pytest
from synthetic_samples import points, sample, with_whole

from hyperscale.analysis.answers import TOLERANCE, Verdict, find_answers
from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.sentences import write_heading, write_paragraphs, write_sentences
from hyperscale.kv.trace import dense_reads

TASK = "mini_aime"


def arm(method, CR, right, problems=200, tokens=200, **more):
    """A chain on each problem, of which every problem in ``right`` is answered."""
    return [
        sample(f"p{p}", method=method, CR=CR, right=p in right, answer=str(p in right), tokens=tokens, **more)
        for p in range(problems)
    ]


def answer(lines, ceiling=math.inf, axis="kv_reads", **more):
    found = [point for point in points(lines) if point.L == 256]
    (result,) = find_answers(make_bootstraps(found, 200).values(), axis, {TASK: ceiling}, **more)
    return result


def reads(CR=1.0, tokens=200):
    return dense_reads(50, tokens) / CR


def test_a_cheap_equal_configuration_is_found_with_the_cost_of_the_full_cache():
    right = set(range(0, 200, 2))
    found = answer(arm("vanilla", 1.0, right) + arm("dms", 8.0, right) + arm("dms", 4.0, right))
    (match,) = found.matches
    assert (match.verdict, match.point.series.CR, match.difference.value) == (Verdict.EQUAL, 8.0, 0.0)
    assert match.cost == pytest.approx(reads(8))
    assert match.base_cost == pytest.approx(reads())
    assert write_sentences(found)[1] == (
        "dms 1-256-8 keeps up with the full cache's best (1-256-1, 50.0 %): +0.0 [-1.4, +1.4] points, so at most 5 "
        "below. It has 50.0 % [43, 57] with 3,731 kv_reads; the full cache needs 29.9K for that (8×)."
    )


def test_costs_are_compared_at_the_accuracy_that_was_reached():
    """The full cache has a cheaper point that is as accurate as the method: its best would flatter the method."""
    some, more = set(range(100)), set(range(104))
    cheap = [with_whole(line, kv_reads=1000.0) for line in arm("vanilla", 1.0, some)]
    dear = [with_whole(line, kv_reads=9000.0) for line in arm("vanilla", 2.0, more)]
    dms = [with_whole(line, kv_reads=500.0) for line in arm("dms", 8.0, some)]
    (match,) = answer(cheap + dear + dms).matches
    assert match.verdict is Verdict.EQUAL
    assert (match.cost, match.base_cost) == (500, 1000)


def test_nothing_is_said_to_bring_the_full_cache_to_an_accuracy_that_it_never_reaches():
    cheap = [with_whole(line, kv_reads=1000.0) for line in arm("vanilla", 1.0, set(range(60)))]
    dear = [with_whole(line, kv_reads=9000.0) for line in arm("vanilla", 2.0, set(range(80)))]
    dms = [with_whole(line, kv_reads=3000.0) for line in arm("dms", 8.0, set(range(180)))]
    found = answer(cheap + dear + dms)
    (match,) = found.matches
    assert (match.exceeds_base, match.base_accuracy, match.base_cost) == (True, 0.4, 9000)
    assert write_sentences(found)[1].endswith(
        "with 3,000 kv_reads; the full cache does not reach that: its best costs 9,000 (3×)."
    )


@pytest.mark.parametrize(
    ("base_cost", "text"), [(99400, "(99×)"), (99600, "(100×)"), (99990, "(100×)"), (123400, "(123×)")]
)
def test_factors_about_a_hundred_are_written_out(base_cost, text):
    vanilla = [with_whole(line, kv_reads=float(base_cost)) for line in arm("vanilla", 1.0, set(range(100)))]
    dms = [with_whole(line, kv_reads=1000.0) for line in arm("dms", 8.0, set(range(100)))]
    assert text in write_sentences(answer(vanilla + dms))[1]


def test_what_is_lower_beyond_noise_is_said_to_be():
    found = answer(arm("vanilla", 1.0, set(range(150))) + arm("tova", 8.0, set(range(100))))
    (match,) = found.matches
    assert match.verdict is Verdict.BELOW
    assert match.difference.value == -25
    assert write_sentences(found)[1].startswith(
        "tova stays below the full cache's best (1-256-1, 75.0 %): -25.0 [-30.9, -18.6] points at its own best"
    )


def test_what_the_problems_cannot_tell_is_not_decided_and_how_many_would_is_estimated():
    right, other = set(range(0, 30, 2)), set(range(1, 31, 2))
    found = answer(arm("vanilla", 1.0, right, 30) + arm("dms", 8.0, other, 30))
    (match,) = found.matches
    assert match.verdict is Verdict.OPEN
    assert match.difference.low < -TOLERANCE
    text = write_sentences(found)[1]
    assert text.startswith("Not decided: whether dms 1-256-8 keeps up with the full cache's best")
    assert f"about {match.more_problems:,} problems would tell" in text
    # With so many problems that differ as these do, it is decided.
    n = 2 * math.ceil(1.01 * match.more_problems / 2)
    more = answer(arm("vanilla", 1.0, set(range(0, n, 2)), n) + arm("dms", 8.0, set(range(1, n, 2)), n))
    assert more.matches[0].verdict is Verdict.EQUAL


def test_what_is_known_and_what_was_only_measured_are_both_told():
    """A cheap configuration was measured as accurate, with other problems right; a dearer one is known to exceed."""
    right = set(range(0, 40, 2))
    other = set(range(1, 41, 2))
    lines = arm("vanilla", 1.0, right, 40) + arm("dms", 8.0, other, 40) + arm("dms", 4.0, set(range(40)), 40)
    known, measured = answer(lines).matches
    assert (known.verdict, known.point.series.CR) == (Verdict.EQUAL, 4)
    assert (measured.verdict, measured.point.series.CR, measured.difference.value) == (Verdict.OPEN, 8, 0)
    sentences = write_sentences(answer(lines))
    assert sentences[1].startswith(
        "dms 1-256-4 is more accurate than the full cache's best (1-256-1, 50.0 %), by +50.0 ["
    )
    assert sentences[2].startswith("Not decided: whether dms 1-256-8 keeps up with")


def test_few_problems_decide_nothing():
    found = answer(arm("vanilla", 1.0, {0, 1}, 6) + arm("dms", 8.0, {0, 1, 2}, 6))
    first, second, last = write_sentences(found)
    assert first == (
        "Measured at best: vanilla (the full cache) 33.3 % at 1-256-1 with 29.9K kv_reads; "
        "dms 50.0 % at 1-256-8 with 3,731 kv_reads."
    )
    assert second.startswith(
        "dms 1-256-8 measured no lower than the full cache's best (1-256-1, 33.3 %): 50.0 % with 3,731 kv_reads;"
    )
    assert last == "Nothing is decided: 6 problems are too few for intervals, which need 10."


def test_a_method_with_few_problems_leaves_the_others_decided():
    right = set(range(0, 200, 2))
    lines = arm("vanilla", 1.0, right) + arm("dms", 8.0, right) + arm("tova", 8.0, right, 6)
    _, dms, tova, last = write_sentences(answer(lines))
    assert dms.startswith("dms 1-256-8 keeps up with the full cache's best")
    assert tova.startswith("tova 1-256-8 measured no lower than the full cache's best on the 6 problems of both")
    assert last == "Nothing is decided of tova: 6 problems are too few for intervals, which need 10."


def test_unlike_numbers_of_few_problems_are_told_and_nothing_right_has_no_price():
    lines = arm("vanilla", 1.0, {0, 1}, 6) + arm("dms", 8.0, {0, 1}, 3) + arm("tova", 8.0, set(), 5)
    _, dms, tova, last = write_sentences(answer(lines))
    assert "the full cache needs 29.9K for that (8×)" in dms
    assert tova == (
        "tova 1-256-8 measured lower than the full cache's best on the 5 problems of both (1-256-1, 40.0 %): 0.0 % "
        "with 3,731 kv_reads."
    )
    assert last == "Nothing is decided: 3 to 5 problems are too few for intervals, which need 10."


@pytest.mark.parametrize("problems", [3, 40])
def test_of_a_full_cache_that_solves_nothing_no_method_is_said_to_keep_up(problems):
    lines = arm("vanilla", 1.0, set(), problems) + arm("dms", 8.0, set(), problems)
    nothing = "The full cache has solved none (1-256-1): there is nothing to keep up with."
    assert write_sentences(answer(lines))[1:] == [nothing]
    more = arm("tova", 8.0, {0, 1}, problems)
    _, first, second, *rest = write_sentences(answer(lines + more))
    assert first == nothing
    assert "tova 1-256-8" in second
    assert not any("dms" in sentence for sentence in (second, *rest))


def test_a_budget_leaves_out_what_costs_more():
    lines = arm("vanilla", 1.0, set(range(100))) + arm("dms", 8.0, set(range(60))) + arm("dms", 2.0, set(range(120)))
    found = answer(lines, ceiling=reads(4))
    vanilla, dms = found.bests
    assert (vanilla.point, vanilla.cost) == (None, reads())
    assert dms.point.series.CR == 8
    assert dms.interval.low < 0.3 < dms.interval.high
    assert write_heading(found) == "mini_aime, 200 problems, at most 7,462 kv_reads each"
    assert write_sentences(found)[0].endswith(
        "No point of vanilla is within the budget: its cheapest costs 29.9K kv_reads."
    )


def test_the_interval_of_the_best_counts_the_choice():
    """Of many equally good points the best is lucky; its interval holds the truth all the same."""
    rng = np.random.default_rng(3)
    held, alone = [], []
    for _ in range(25):
        lines = [
            line for CR in range(2, 14) for line in arm("dms", float(CR), set(np.flatnonzero(rng.random(60) < 0.5)), 60)
        ]
        (best,) = answer(lines).bests
        held.append(best.interval.low <= 0.5)
        alone.append(best.point.interval.low <= 0.5)
    assert np.mean(held) >= 0.9
    assert np.mean(alone) < 0.9


def test_where_all_is_right_the_best_has_an_interval():
    (best,) = answer(arm("dms", 8.0, set(range(60)), 60)).bests
    assert 0.9 < best.interval.low < best.interval.high == 1


def test_without_the_full_cache_only_the_budget_is_told_of():
    found = answer(arm("dms", 8.0, set(range(100))))
    assert found.base is None
    assert write_sentences(found)[1:] == [
        "There are no chains of the full cache to compare with: add vanilla to --method, or run these methods under "
        "the name of the model whose full cache has run."
    ]


def test_unlike_problems_are_compared_on_those_of_both_and_it_is_said():
    lines = arm("vanilla", 1.0, set(range(20)), 40) + arm("dms", 8.0, set(range(20)), 20)
    found = answer(lines)
    assert found.matches[0].difference.n_problems == 20
    assert found.matches[0].accuracy == 1.0
    assert write_heading(found) == "mini_aime, vanilla on 40 problems, dms on 20 problems"
    assert "on the 20 problems of both" in write_sentences(found)[1]
    begun = dataclasses.replace(found, n_problems={"vanilla": 2, "dms": 1})
    assert write_heading(begun) == "mini_aime, vanilla on 2 problems, dms on 1 problem"


def test_the_named_best_of_the_full_cache_is_the_one_that_is_compared_with():
    """The full cache's best on all of its 40 problems is another point than on the 20 that dms was run on, too."""
    on_all = [with_whole(line, kv_reads=1000.0) for line in arm("vanilla", 1.0, {*range(5), *range(20, 40)}, 40)]
    on_both = [with_whole(line, kv_reads=2000.0) for line in arm("vanilla", 2.0, set(range(18)), 40)]
    lines = on_all + on_both + arm("dms", 8.0, set(range(5)), 20) + arm("tova", 8.0, set(range(5)), 40)
    found = answer(lines)
    assert found.base.series.CR == 1
    dms, tova = found.matches
    assert (dms.base.series.CR, dms.base_accuracy, dms.difference.value) == (2, 0.9, -65)
    assert (tova.base.series.CR, tova.base_accuracy, tova.difference.value) == (1, 0.625, -50)
    sentences = {sentence.split()[0]: sentence for sentence in write_sentences(found)[1:]}
    assert sentences["dms"].startswith(
        "dms stays below the full cache's best on the 20 problems of both (1-256-2, 90.0 %): -65.0 ["
    )
    assert sentences["tova"].startswith("tova stays below the full cache's best (1-256-1, 62.5 %): -50.0 [")


def test_where_neither_has_solved_a_common_problem_nothing_is_said_to_keep_up():
    lines = arm("vanilla", 1.0, set(range(20, 40)), 40) + arm("dms", 8.0, set(), 20)
    assert len(write_sentences(answer(lines))) == 1


def test_several_models_are_named():
    lines = [*arm("vanilla", 1.0, {1}, 12), *arm("vanilla", 1.0, {1}, 12, model="large")]
    found = find_answers(make_bootstraps(points(lines), 100).values(), "tokens")
    assert [heading for heading, _ in write_paragraphs(found)] == [
        "mini on mini_aime, 12 problems",
        "large on mini_aime, 12 problems",
    ]
