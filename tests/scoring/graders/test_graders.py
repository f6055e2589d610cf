import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import ROOT

from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.scoring.graders.base import keep_ends
from hyperscale.scoring.graders.forms.boxes import last_box
from hyperscale.scoring.graders.forms.integers import canonical_integer

ROW = re.compile(r"^\| `(.+)` \| (-?[0-9]+(?:\^\\circ)?) \| (right|wrong|none) \| .+ \|$", re.MULTILINE)
DOCUMENTED = ROW.findall((ROOT / "docs/graders.md").read_text(encoding="utf-8"))


def test_the_documented_cases_are_all_read():
    text = (ROOT / "docs/graders.md").read_text(encoding="utf-8")
    section = text[text.index("## Integers") : text.index("## MATH")]
    assert len(DOCUMENTED) == section.count("\n| `") == 84


@pytest.mark.parametrize(("text", "target", "verdict"), DOCUMENTED)
def test_integer_grader_does_what_the_table_says(text, target, verdict):
    grader = graders.get("integer")
    answer = grader.extract(text)
    assert (answer is None) is (verdict == "none")
    if answer is not None:
        assert grader.correct(answer, target) is (verdict == "right")
        assert grader.correct(answer, int(target.removesuffix(r"^\circ"))) is (verdict == "right")


def test_an_integer_of_thousands_of_digits_is_no_error():
    grader = graders.get("integer")
    answer = grader.extract(r"</think>\boxed{" + "9" * 6000 + "}")
    assert not grader.correct(answer, 42)
    assert grader.correct(answer, "0" + "9" * 6000)


def test_a_long_box_that_is_no_integer_is_cut_and_wrong():
    grader = graders.get("integer")
    answer = grader.extract(r"</think>\boxed{" + "4" * 1000 + " " * 10 + "x" * 100_000 + "}")
    assert len(answer) < 1010
    assert not grader.correct(answer, "4" * 1000)


@pytest.mark.timeout(60)  # quadratic time would be hours
@pytest.mark.parametrize("name", ["integer", "math", "choice", "code", "livecodebench"])
@pytest.mark.parametrize(
    "piece", ["```python\n", "```\n", "Answer: ", "\\boxed{", "\\text{", "answer: \\boxed{", "</think>", "   "]
)
def test_text_that_repeats_itself_takes_linear_time(name, piece):
    graders.get(name).extract("</think>" + piece * (400_000 // len(piece)))
    graders.get(name).extract("</think>\\boxed{" + piece * (400_000 // len(piece)) + "}")


def test_integer_answers_that_are_equal_are_voted_on_as_one():
    grader = graders.get("integer")
    assert {grader.extract("</think>\\boxed{" + form + "}") for form in ("7", "007", " 7 ", "\\text{7}", "+7")} == {"7"}


@given(st.integers(-(10**9), 10**9))
def test_every_integer_is_its_own_canonical_form(value):
    assert canonical_integer(str(value)) == str(value)
    assert canonical_integer(f"{value:,}") == str(value)


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
    ("a</think>Answer: `C`", "C"),
    ("a</think>Answer: 'C'", "C"),
    ("a</think>Answer: I'd say", None),
    ('a</think>Answer: "C"', "C"),
    ("a</think>Answer: \u201cC\u201d", "C"),
    ("a</think>Answer\uff1aC", "C"),
    ("a</think>### Answer: \n\n**C**\n", "C"),
    ("a</think>Answer: LETTER", None),
    ("a</think>Answer: Because it is", None),
    ("a</think>Answer: b", None),
    ("a</think>B", None),
    ("Answer: B</think>", None),
    ("Answer: B", "B"),  # no thinking was opened, so the whole text counts
    ("<think>Answer: B", None),
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


def test_scoring_needs_no_torch():
    code = "import sys, hyperscale.scoring.graders, hyperscale.scoring.voting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_of_a_very_long_answer_the_end_is_graded_too():
    assert keep_ends("It is 42.") == "It is 42."
    kept = keep_ends("first " + "on and on " * 20_000 + "42")
    assert kept.startswith("first on")
    assert kept.endswith("on 42")
    assert len(kept) == 32_003
