"""The integer grader on a file of answers, on answers found awkward elsewhere, and in votes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import SHARED

from hyperscale.scoring import graders
from hyperscale.scoring.graders.integer import IntegerGrader

CASES = [json.loads(line) for line in Path(__file__).with_name("integer_cases.jsonl").read_text("utf-8").splitlines()]
GRADER = IntegerGrader()


def verdict(text, target):
    answer = GRADER.extract(text)
    return answer is not None and GRADER.correct(answer, target)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['box']}-{case['target']}")
def test_what_is_equal_to_the_integer_is_right(case):
    assert verdict("thinking</think>so \\boxed{" + case["box"] + "}", case["target"]) is case["right"]


def test_answers_of_other_peoples_reports():
    path = SHARED / "awkward_answers.jsonl"
    if not path.is_file():
        pytest.skip("the file of awkward answers is not here")
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    cases = [case for case in cases if case["grader"] == "integer"]
    assert len(cases) > 25
    assert [case for case in cases if verdict(case["text"], case["target"]) is not case["right"]] == []


def test_equal_answers_are_equal_in_votes():
    forms = [r"\frac{146}{2}", "73", "n = 73", r"70+3", "73.0", "74", r"73\%", "146/2", "73/1"]
    answers = [GRADER.extract("</think>\\boxed{" + form + "}") for form in forms]
    equal = GRADER.equal_many([("73", answer) for answer in answers])
    assert equal == [True, True, True, True, True, False, False, True, False]
    assert GRADER.equal_many([(r"\frac{146}{2}", "70+3"), (r"\frac{146}{2}", "148/2"), (r"73\%", r"73\%")]) == [
        True,
        False,
        True,
    ]


@given(st.text(alphabet="0123456789\\{}()=,.;:+-/ _^%$textmaboldi\ue000\ue001", max_size=60))
def test_no_text_is_an_error(text):
    grader = graders.get("integer")
    answer = grader.extract("</think>\\boxed{" + text + "}")
    if answer is not None and answer.lstrip("-").isdecimal():
        assert grader.extract("</think>\\boxed{" + answer + "}") == answer  # a canonical form stays what it is


@pytest.mark.timeout(60)  # quadratic time would be minutes
@pytest.mark.parametrize("piece", ["1,", "=", "n=", "\\text{a", "{", "(", "\\mathrm{a}", "per ", "a-", "1 ", "_ "])
def test_long_boxes_take_linear_time(piece):
    GRADER.extract("</think>\\boxed{" + piece * (200_000 // len(piece)) + "}" * 3)
