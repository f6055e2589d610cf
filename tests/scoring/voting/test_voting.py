from collections import Counter
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voting_reference import majority

from hyperscale.scoring.voting import subsets

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8)


def accuracy(answers, correct, width):
    """`majority_accuracy` of one problem."""
    codes = np.array([subsets.encode_answers(answers)], dtype=np.int64)
    return float(subsets.majority_accuracy(codes, np.array([correct], dtype=np.bool_), width)[0])


def winner_of(answers):
    """The answer that all chains together vote for; None if no answer would be right."""
    winners = [x for x in dict.fromkeys(answers) if x and accuracy(answers, [a == x for a in answers], len(answers))]
    assert len(winners) <= 1
    return winners[0] if winners else None


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["1", "2"], "1"),
        (["2", "1", "1"], "1"),
        (["2", "1", "1", "2"], "2"),
        ([None, None, "3"], "3"),
        ([None, "3", "1", None, None], "3"),
        ([None, None], None),
    ],
)
def test_majority(answers, winner):
    assert winner_of(answers) == winner == majority(answers)


@given(ANSWERS)
def test_majority_is_a_mode_and_the_first_of_them(answers):
    counts = Counter(answer for answer in answers if answer is not None)
    winner = winner_of(answers)
    if not counts:
        assert winner is None
    else:
        assert winner == next(a for a in answers if a is not None and counts[a] == max(counts.values()))


@given(ANSWERS, st.integers(1, 8), st.sampled_from(["1", "2", "4"]))
def test_expected_majority_is_the_mean_over_all_subsets(answers, width, target):
    width = min(width, len(answers))
    correct = [answer == target for answer in answers]
    verdicts = [majority(subset) == target for subset in combinations(answers, width)]
    assert accuracy(answers, correct, width) == pytest.approx(np.mean(verdicts))


@given(st.lists(st.sampled_from(["1", "2"]), min_size=2, max_size=8))
def test_the_vote_of_two_answers_is_the_earlier_one(answers):
    correct = [answer == "1" for answer in answers]
    earlier = [a == "1" for a, _ in combinations(answers, 2)]
    assert accuracy(answers, correct, 2) == pytest.approx(np.mean(earlier))


def test_many_subsets_are_sampled_reproducibly_and_close_to_exact():
    rng = np.random.default_rng(0)
    answers = [str(a) for a in rng.integers(0, 3, 20)]
    correct = [answer == "1" for answer in answers]
    sampled = accuracy(answers, correct, 4)
    assert sampled == accuracy(answers, correct, 4)
    exact = np.mean([majority(subset) == "1" for subset in combinations(answers, 4)])
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(0.25 / subsets.EXACT_SUBSETS))
    index = subsets.draw_subsets(20, 4)
    assert index.shape == (subsets.EXACT_SUBSETS, 4)
    assert (np.diff(index, axis=1) > 0).all()


def test_a_batch_of_problems_equals_each_on_its_own():
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 3, (50, 6))
    correct = codes == 1
    batch = subsets.majority_accuracy(codes, correct, 4)
    for row, right, value in zip(codes, correct, batch, strict=True):
        answers = [None if code < 0 else str(code) for code in row]
        assert accuracy(answers, right, 4) == pytest.approx(value)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_pass_at_k_is_the_mean_over_all_subsets(n, c, k):
    c, k = min(c, n), min(k, n)
    chains = [True] * c + [False] * (n - c)
    hits = sum(any(subset) for subset in combinations(chains, k))
    assert subsets.pass_at_k(n, c, k) == pytest.approx(hits / comb(n, k))


def test_impossible_widths_are_refused():
    with pytest.raises(ValueError, match="pass@k"):
        subsets.pass_at_k(4, 2, 5)
    with pytest.raises(ValueError, match="subset"):
        subsets.draw_subsets(4, 5)


@given(st.lists(st.tuples(st.sampled_from([None, -2.0, -1.0, 0.5]), st.booleans()), min_size=1, max_size=7), st.data())
def test_best_of_n_is_the_mean_over_all_subsets(chains, data):
    width = data.draw(st.integers(1, len(chains)))
    verdicts = []
    for subset in combinations(chains, width):
        scored = [chain for chain in subset if chain[0] is not None] or [subset[0]]
        best = max(score for score, _ in scored) if scored[0][0] is not None else None
        verdicts.append(next(right for score, right in scored if score == best))
    scores, correct = zip(*chains, strict=True)
    assert subsets.best_of_n(scores, correct, width) == pytest.approx(np.mean(verdicts))
