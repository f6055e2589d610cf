"""Redaction: what is quoted from a question is blacked out, and what graders look for stays."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_samples import sample

from hyperscale.models.thinking import TABLE
from hyperscale.results import grading
from hyperscale.results.recording import _hidden
from hyperscale.results.redaction import as_words, redact
from hyperscale.scoring import graders

QUESTION = (
    "Which one of these statements on the spin of a particle in a box is the correct answer?\n"
    "A) the first or the second\nB) neither the first nor the second option is true\nC) a particle thinks\n"
    "D) not all of the first\n\n"
    "Think step by step. Let the last line of your reply be Answer: LETTER, where LETTER is A, B, C or D."
)
LINES = QUESTION.splitlines()
#: The question, or parts of it, with what graders look for inside and beside.
TEXTS = [
    f"{QUESTION}</think>{QUESTION}\nAnswer: C",
    "Let the last line of your reply be\n</think>\nAnswer: C, where LETTER is A, B, C or D.\nAnswer: C",
    f"<think>{LINES[4]}</think>{LINES[0]} The correct answer is: C",
    f"They say: {LINES[-1]} So </think>\\boxed{{C}}",
    f"Think step by step. Let </think> the last line of your reply be \\boxed{{\\text{{C}}}}. {LINES[-1]}",
    f"{LINES[2]}</think>Answer: C\n\n{LINES[2]}",
    f"{LINES[0]}\nAnswer: C) {LINES[3]}",
    "</think>Answer: A or C",  # no answer, redacted or not
    f"</think>Answer: A, B, C or D.\n{LINES[-1]}",
    "</think>Let the last line of your reply be Answer: LETTER, where LETTER is A, B, C or D.",
    f"</think>{LINES[1]}",
    f"<think>{QUESTION}",
]


def extract(text):
    return graders.get("choice").extract(as_words(text), finished=True)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_left_answers_the_same(text):
    hidden = redact(text, QUESTION)
    assert extract(hidden) == extract(text)
    assert len(hidden) == len(text)


@pytest.mark.parametrize("marks", TABLE, ids=lambda marks: marks.opening)
def test_marks_are_never_blacked_out(marks):
    """Even where the question has the words of a mark in a row."""
    words = re.findall(r"\w+", f"{marks.opening} {marks.closing}")
    question = " ".join(["one", "two", *words, "three", "four", "five", "six"])
    text = f"one two {marks.opening} {marks.closing} three four five six"
    hidden = redact(f"{marks.opening} one two three {marks.closing} {text}", question)
    assert marks.opening in hidden.split("three")[0]
    assert hidden.count(marks.closing) == 2
    assert "█" in hidden
    own = redact("<|plan|> one two three four five six <|/plan|>", "plan one two three four five six plan x")
    assert own == "<|plan|> ███ ███ █████ ████ ████ ███ <|/plan|>"
    text, question = "«plan» one two three four five six «done»", "plan one two three four five six done"
    named = redact(text, question, marks=("«plan»", "«done»"))
    assert named == "«plan» ███ ███ █████ ████ ████ ███ «done»"


PIECES = [*QUESTION.split(), *LINES, "</think>", "<think>", "Answer: B", "\\boxed{C}", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_mixture_answers_the_same_in_the_stored_sample(words):
    """Of what `record` tries, one leaves the answers as they were."""
    text = " ".join(words)
    line = sample(text=text, opened="")
    line = replace(line, cuts=(replace(line.whole, chars=len(text)),))
    choice = graders.get("choice")
    answers = grading.extract_answers(choice, line)
    tried = [_hidden(line, lambda t, small=small: redact(t, QUESTION, keep_small=small)) for small in (False, True)]
    assert answers in [grading.extract_answers(choice, hidden) for hidden in tried]


def test_marks_that_earlier_versions_blacked_out_are_known():
    assert extract("<█████>Answer: B █████ </█████>█████ Answer: C") == "C"
    assert extract("<█████>Answer: B █████") is None


def test_nothing_of_a_question_is_left():
    """But for single characters, six words in a row of it stand nowhere, whatever is kept."""
    words = [word.casefold() for word in re.findall(r"\w+", QUESTION) if len(word) > 1]
    for small in (False, True):
        hidden = redact(f"I read: {QUESTION} </think> {QUESTION}", QUESTION, keep_small=small)
        left = [word.casefold() for word in re.findall(r"\w+", hidden) if len(word) > 1]
        runs = {tuple(words[i : i + 6]) for i in range(len(words) - 5)}
        assert not runs & {tuple(left[i : i + 6]) for i in range(len(left) - 5)}
        assert hidden.count("█") > 150


@pytest.mark.parametrize(
    "line", ["_Answer: C_", "__Answer:__ _C_", "_The correct answer is_ _C_", "_Answer_: A, as well as C"]
)
def test_answers_in_emphasis_are_kept_in_a_quotation(line):
    question = f"{LINES[0]}\n{line}"
    text = f"<think>{question}</think>\n{question}"
    hidden = redact(text, question, keep_small=True)
    grader = graders.get("choice")
    assert "█" in hidden
    assert grader.extract(as_words(hidden)) == grader.extract(text)
