"""Equal answers are one candidate of a vote, by the grader's own equality."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_samples import points_table, sample

from hyperscale.scoring import graders
from hyperscale.scoring.graders.base import Grader
from hyperscale.scoring.voting.candidates import Candidates
from hyperscale.scoring.voting.strategies import Majority, Vote

QUARTER = (r"\frac14", r"\frac{1}{4}", "0.25", r"\dfrac{1}{4}", "1/4", ".25")


def votes_of(grader, answers, target):
    return [Vote(answer, answer is not None and grader.correct(answer, target)) for answer in answers]


def extracted(grader, forms):
    return [grader.extract("</think>\\boxed{" + form + "}") for form in forms]


@pytest.mark.parametrize("target", [r"\frac14", "7"])  # right answers, and wrong ones
def test_forms_of_one_number_are_one_candidate(target):
    grader = graders.get("math")
    answers = extracted(grader, ["2", *QUARTER, "2", "x"])
    united = Candidates(grader).unite(votes_of(grader, answers, target))
    assert [vote.answer for vote in united] == ["2", *[answers[1]] * 6, "2", "x"]
    verdicts = [vote.correct for vote in votes_of(grader, answers, target)]
    assert [vote.correct for vote in united] == verdicts


def test_integers_of_any_form_are_one_candidate():
    grader = graders.get("integer")
    answers = extracted(grader, ["n=73", r"\frac{146}{2}", "70+3", "074", "148/2", "73.0", r"73\%"])
    united = [vote.answer for vote in Candidates(grader).unite(votes_of(grader, answers, "5"))]
    assert united == ["73", "73", "73", "74", "74", "73", r"73\%"]


def test_programs_are_compared_as_texts():
    votes = [Vote("print(1)", correct=True), Vote("print( 1 )", correct=True)]
    assert Candidates(graders.get("livecodebench")).unite(votes) == votes
    assert Candidates(None).unite(votes) == votes


def accuracy(answers, target, width):
    grader = graders.get("math")
    votes = votes_of(grader, extracted(grader, answers), target)
    return float(Majority().accuracy([Candidates(grader).unite(votes)], width)[0])


def test_the_majority_counts_equal_answers_together():
    assert accuracy(["2", "2", r"\frac14", "0.25", "1/4"], r"\frac14", 5) == 1
    assert accuracy(["3", "3", r"\frac14", "0.25", "1/4"], "3", 5) == 0
    # ties to the candidate that occurs first
    assert accuracy(["0.25", "2", "2", "1/4"], r"\frac14", 4) == 1
    assert accuracy(["2", "0.25", "2", "1/4"], r"\frac14", 4) == 0


def test_points_are_made_of_candidates():
    lines = [
        replace(sample("a", chain, answer=answer, right=False), task="math500")
        for chain, answer in enumerate(("0.5", r"\frac12", r"\frac{1}{2}"))
    ]
    lines += [replace(sample("a", 3 + i, answer="9", right=True), task="math500") for i in range(2)]
    table = points_table(lines, widths=(5,))
    assert table[(table.W == 5) & (table.L == 2048)].accuracy.item() == 0
    as_texts = [replace(line, task="elsewhere") for line in lines]
    table = points_table(as_texts, widths=(5,), strategy_of_task={"elsewhere": "majority"})
    assert table[(table.W == 5) & (table.L == 2048)].accuracy.item() == 100


class _Modulo(Grader):
    """Answers are equal that have the same remainder."""

    name = "modulo"

    def __init__(self, modulus):
        self.modulus, self.asked = modulus, []

    def extract(self, text, *, finished=None):
        return text

    def correct(self, answer, target):
        return (int(answer) - int(target)) % self.modulus == 0

    def equal_many(self, pairs):
        self.asked += pairs
        return [self.correct(*pair) for pair in pairs]


@given(st.lists(st.integers(0, 30).map(str) | st.none(), min_size=1, max_size=12), st.integers(1, 7))
def test_candidates_are_the_classes_of_equality(answers, modulus):
    grader = _Modulo(modulus)
    votes = votes_of(grader, answers, "0")
    united = Candidates(grader).unite(votes)
    for (one, first), (other, second) in product(zip(votes, united, strict=True), repeat=2):
        if one.answer is None or other.answer is None:
            continue
        assert (first.answer == second.answer) is grader.correct(one.answer, other.answer)
    for vote, name in zip(votes, united, strict=True):
        assert (vote.answer is None) is (name.answer is None)
        assert vote.correct is name.correct
    # The first answer stands for its candidate.
    firsts = {int(vote.answer) % modulus: vote.answer for vote in reversed(votes) if vote.answer is not None}
    assert [name.answer for name in united if name.answer] == [
        firsts[int(v.answer) % modulus] for v in votes if v.answer
    ]


def test_pairs_are_compared_once_and_not_without_end():
    grader = _Modulo(10**6)
    votes = [Vote(str(i), correct=False) for i in range(500)]
    candidates = Candidates(grader)
    candidates.unite(votes)
    assert len(grader.asked) == len(set(grader.asked)) == 64 * 63 // 2 + (500 - 64) * 64
    asked = len(grader.asked)
    assert candidates.unite(votes) == votes
    assert len(grader.asked) == asked


def test_the_order_of_equal_answers_does_not_change_accuracy():
    rng = np.random.default_rng(0)
    forms = {"a": QUARTER, "b": ("2", "2.0", r"\frac{4}{2}"), "c": ("x", "x", "x")}
    for _ in range(5):
        names = rng.choice(list(forms), 6)
        spelled = [str(rng.choice(forms[name])) for name in names]
        plain = [forms[name][0] for name in names]
        for width in (1, 2, 4, 6):
            assert accuracy(spelled, r"\frac14", width) == accuracy(plain, r"\frac14", width)
