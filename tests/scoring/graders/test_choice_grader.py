"""The choice grader on a file of answers, and on answers found awkward elsewhere."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import SHARED

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.scoring.graders.choice import ChoiceGrader
from hyperscale.tasks import task_files
from hyperscale.utils.paths import data_dir

CASES = [json.loads(line) for line in Path(__file__).with_name("choice_cases.jsonl").read_text("utf-8").splitlines()]
GRADER = ChoiceGrader()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_the_letter_an_answer_names(case):
    assert GRADER.extract("Answer: B, or so I thought.</think>" + case["text"]) == case["letter"]
    assert GRADER.extract("thinking</think>Some words first.\n\n" + case["text"] + "\n") == case["letter"]


def test_answers_of_other_peoples_reports():
    path = SHARED / "awkward_answers.jsonl"
    if not path.is_file():
        pytest.skip("the file of awkward answers is not here")
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    cases = [case for case in cases if case["grader"] == "choice"]
    assert len(cases) > 60

    def verdict(case):
        answer = GRADER.extract(case["text"])
        return answer is not None and GRADER.correct(answer, case["target"])

    assert [case for case in cases if verdict(case) is not case["right"]] == []


@pytest.mark.parametrize(("options", "letters"), [(2, "AB"), (4, "ABCD"), (5, "ABCDE"), (10, "ABCDEFGHIJ")])
def test_a_letter_beyond_the_options_is_none(options, letters):
    grader = graders.get("choice", options)
    for letter in "ABCDEFGHIJK":
        assert grader.extract(f"</think>Answer: {letter}") == (letter if letter in letters else None)
        assert grader.extract(f"</think>\\boxed{{{letter}}}") == (letter if letter in letters else None)


def test_words_are_no_letters_where_there_are_many_options():
    grader = graders.get("choice", 10)
    for text in ("I don't know", "I think so", "A reaction", "I.e. none", "I'd say", "I or J"):
        assert grader.extract(f"</think>Answer: {text}") is None
    assert grader.extract("</think>Answer: I") == "I"


def test_the_number_of_options_is_the_tasks(tmp_path):
    for name in ("gpqa_diamond", "mini_gpqa"):
        assert tasks.load(name).new_grader().extract("</think>Answer: E") is None
    text = (data_dir("tasks") / "gpqa_diamond.yaml").read_text("utf-8")
    path = tmp_path / "gpqa_diamond.yaml"
    path.write_text(text.replace("options: 4", "options: 5"), "utf-8")
    assert task_files.read(path).new_grader().extract("</think>Answer: E") == "E"
    path.write_text(text.replace("options: 4", "options: 1"), "utf-8")
    with pytest.raises(TaskError, match="options"):
        task_files.read(path)


@given(st.text(alphabet="Answer:is ABCDE()\\{}boxed*_.,\n$orand", max_size=80))
def test_no_text_is_an_error(text):
    assert GRADER.extract("</think>" + text) in (None, "A", "B", "C", "D")
