"""Checks what problems are graded by before anything is generated: a key that no answer can meet costs a whole run."""

import json
import re
import string
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.utils.validation import shorten

_LONGEST_INTEGER = 4000  # digits
# LaTeX that says how something looks, not what it is; and the answers that have neither letters nor digits.
_LAYOUT = re.compile(r"\\(?:boxed|fbox|text\w*|math[a-z]+|operatorname|left|right|q?quad|displaystyle)(?![A-Za-z])")
_SIGNS = "∞∅√°%"
_BRACE = re.compile(r"(?<!\\)(?:\\\\)*([{}])")  # but for those that are printed, ``\{``
_MARK = "####"  # of GSM8K, before the answer at the end of a solution
_SENTENCE = re.compile(r"\bthe (?:final |correct |right )?answer is\b", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\{A-Za-z])[A-Za-z]{2,}")  # but for names of LaTeX
_MOST_WORDS = 3  # of an answer in several lines, such as a matrix
_NOTHING = {"", "nan", "none", "null", "n/a", "na", "?", "-"}  # what tables hold where an answer is missing


def check_target(grader: str, target: Any, options: int | None = None) -> None:
    """Refuse a target that no answer can meet.

    Args:
        grader: Name of the task's grader.
        target: What it compares answers with.
        options: How many options the task's questions have; None for four.

    Raises:
        TaskError: The target is of another kind than the grader's; the message says what it should be.
    """
    if grader == "livecodebench":
        from hyperscale.scoring.graders.livecodebench_tests import read_tests

        read_tests(target)
        if not target["public_test_cases"].lstrip().startswith("["):
            raise TaskError("its public_test_cases are no list of tests: the data are corrupt")
    elif grader == "contains":
        _check_texts(target)
    elif grader == "code":
        _check_tests(target)
    elif (
        grader in ("exact_match", "likelihood") or ":" in grader
    ):  # lm-eval's, and a function of the user's own, which knows what its targets are
        _check_json(target)
    elif isinstance(target, bool) or not isinstance(target, str | int | float):
        raise TaskError(f"its target is {shorten(target)}, which is no answer: write a text or a number")
    elif grader == "integer":
        check_integer(target)
    elif grader == "choice":
        letters = string.ascii_uppercase[: options or 4]
        if str(target).strip().upper() not in set(letters):
            raise TaskError(f"its key is {shorten(target)}, which is none of the letters {letters[0]} to {letters[-1]}")
    else:
        _check_maths(str(target))


def _check_maths(answer: str) -> None:
    check_text(answer, "answer")
    words = _LAYOUT.sub("", answer)
    if answer.strip().lower() in _NOTHING or not any(sign.isalnum() or sign in _SIGNS for sign in words):
        raise TaskError(f"its answer is {shorten(answer)}, which is none: leave the problem out, or write its answer")
    if _MARK in answer:
        raise TaskError(
            f"its answer is {shorten(answer)}, which holds a solution: keep what follows {_MARK}, in a task's file "
            f"with `answer: \"{{{{answer.split('{_MARK}') | last | trim}}}}\"`"
        )
    in_lines = "\n" in answer.strip() and len(_WORD.findall(answer)) > _MOST_WORDS
    if in_lines or _SENTENCE.search(answer):
        raise TaskError(f"its answer is {shorten(answer)}, which is more than an answer: keep what is to be compared")
    braces = _BRACE.findall(answer)
    if braces.count("{") != braces.count("}"):
        raise TaskError(f"its answer is {shorten(answer)}, with a brace that has no partner: write all of it")


def check_integer(target: Any) -> int:
    """The integer that a target is.

    Raises:
        TaskError: It is none.
    """
    from hyperscale.scoring.graders.forms.integers import canonical_integer

    # Some copies of data sets hold integers as floats, 336.0.
    number = canonical_integer(str(target).strip().removesuffix(".0"))
    if number is None:
        raise TaskError(f"its answer is {shorten(target)}, which is not an integer")
    if len(number) > _LONGEST_INTEGER:
        raise TaskError(f"its answer has {len(number):,} digits: {_LONGEST_INTEGER:,} are the most")
    return int(number)


def check_text(text: str, what: str) -> None:
    """Refuse a text that cannot be written in UTF-8.

    Raises:
        TaskError: It holds half of a pair of UTF-16, as text does that was cut in the middle of a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"its {what} has {text[error.start]!r} at character {error.start + 1}, which is no character: mend the text"
        ) from None


def _check_texts(target: Any) -> None:
    texts = [target] if isinstance(target, str) else target
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise TaskError(
            f"its target is {shorten(target)}: it must be a text, or a list of texts that an answer contains"
        )


def _check_json(target: Any) -> None:
    try:
        json.dumps(target, allow_nan=False)
    except (TypeError, ValueError):
        raise TaskError(
            f"its target is {shorten(target)}: it must be made of texts, numbers, lists and mappings"
        ) from None


def _check_tests(target: Any) -> None:
    if not isinstance(target, list) or not target:
        raise TaskError(f"its target is {shorten(target)}: it must be a list of tests, each with input and output")
    for number, test in enumerate(target, start=1):
        if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
            raise TaskError(f"test {number} of its target is {shorten(test)}: a test has input and output")
