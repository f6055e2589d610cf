import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.scoring.integer import canonical, last_box

INTEGER_CASES = [
    (r"a</think>so \boxed{42}", 42, True),
    (r"a</think>so \boxed{042}", 42, True),
    (r"a</think>\boxed{ 42 }", 42, True),
    (r"a</think>\boxed {42}", 42, True),
    (r"a</think>\boxed{$42$}", 42, True),
    (r"a</think>\boxed{\text{42}}", 42, True),
    (r"a</think>\boxed{42\text{ apples}}", 42, True),
    (r"a</think>\boxed{\mathbf{42}}.", 42, True),
    (r"a</think>\boxed{1,234}", 1234, True),
    (r"a</think>\boxed{1{,}234}", 1234, True),
    (r"a</think>\boxed{1\,234}", 1234, True),
    (r"a</think>\boxed{12,34}", 1234, False),
    (r"a</think>\boxed{1, 2}", 12, False),
    (r"a</think>\boxed{42.}", 42, True),
    (r"a</think>\boxed{42.5}", 42, False),
    (r"a</think>\boxed{-42}", -42, True),
    (r"a</think>\boxed{-42}", 42, False),
    (r"a</think>\boxed{\frac{84}{2}}", 42, False),
    (r"a</think>\boxed{1} then \boxed{42}", 42, True),
    (r"a</think>\boxed{42} then \boxed{1", 42, True),
    (r"a</think>\boxed{\boxed{42}}", 42, True),
    (r"a</think>\boxed{42}</think>\boxed{7}", 7, True),
    (r"a \boxed{42}</think>none here", 42, None),
    (r"<think>the answer is \boxed{42}", 42, None),
    (r"a</think>42", 42, None),
    (r"a</think>\boxed{}", 42, None),
    (r"a</think>\boxed{42", 42, None),
    (r"a</think>\boxed{" + "9" * 6000 + "}", 42, False),
]


@pytest.mark.parametrize(("text", "target", "verdict"), INTEGER_CASES)
def test_integer_grader_on_awkward_answers(text, target, verdict):
    grader = graders.get("integer")
    answer = grader.extract(text)
    if verdict is None:
        assert answer is None
    else:
        assert answer is not None
        assert grader.correct(answer, target) is verdict
        assert grader.correct(answer, str(target)) is verdict


def test_integer_answers_that_are_equal_are_voted_on_as_one():
    grader = graders.get("integer")
    assert {grader.extract("</think>\\boxed{" + form + "}") for form in ("7", "007", " 7 ", "\\text{7}", "+7")} == {"7"}


@given(st.integers(-(10**9), 10**9))
def test_every_integer_is_its_own_canonical_form(value):
    assert canonical(str(value)) == str(value)
    assert canonical(f"{value:,}") == str(value)


@given(st.text(alphabet="\\boxed{} 1$", max_size=60))
def test_finding_the_box_never_fails_and_returns_balanced_text(text):
    content = last_box(text)
    if content is not None:
        assert content in text


def test_many_unclosed_boxes_take_linear_time():
    assert last_box("\\boxed{" * 200_000) is None


CHOICE_CASES = [
    ("a</think>Answer: B", "B"),
    ("a</think>Answer: A\nno, Answer: C", "C"),
    ("a</think>**Answer: (D)**", "D"),
    ("a</think>**Answer:** D", "D"),
    ("a</think>answer: $\\boxed{B}$", "B"),
    ("a</think>Answer: \\text{C}.", "C"),
    ("a</think>Answer: Because it is", None),
    ("a</think>Answer: b", None),
    ("a</think>B", None),
    ("Answer: B</think>", None),
    ("Answer: B", None),
]


@pytest.mark.parametrize(("text", "letter"), CHOICE_CASES)
def test_choice_grader(text, letter):
    grader = graders.get("choice")
    assert grader.extract(text) == letter
    if letter:
        assert grader.correct(letter, letter)
        assert not grader.correct(letter, "A")


def test_unknown_grader_names_the_known_ones():
    with pytest.raises(TaskError, match="integer, math, choice, code, livecodebench"):
        graders.get("vibes")
    assert set(graders.available()) == {"integer", "math", "choice", "code", "livecodebench"}


def test_scoring_needs_no_torch():
    code = "import sys, hyperscale.scoring.graders, hyperscale.scoring.voting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
