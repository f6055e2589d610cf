"""Orders the options of a multiple-choice question, as a function of the question's id and nothing else.

A loader that shuffles every question with the same seed puts the key on the same letter each time, and a model that
likes that letter looks clever. Here every question has an order of its own, and a rerun on any machine has the same.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from hyperscale.errors import TaskError

LETTERS = "ABCDEFGHIJ"


class Arrangement(NamedTuple):
    """Options in the order they are shown, and the letter of the correct one."""

    options: tuple[str, ...]
    letter: str


def arrange(question_id: str, correct: str, incorrect: Sequence[str]) -> Arrangement:
    """Order a question's options by the SHA-256 of its id; over many ids every order is equally likely.

    Args:
        question_id: The question's id in its data set; the only thing the order depends on.
        correct: The correct option; surrounding whitespace is dropped.
        incorrect: The other options, 1 to 9, likewise.

    Raises:
        TaskError: There are too few or too many options, or an incorrect one repeats the correct one.
    """
    options = [text.strip() for text in (correct, *incorrect)]
    if not 2 <= len(options) <= len(LETTERS):
        raise TaskError(f"question {question_id!r} has {len(options)} options: between 2 and {len(LETTERS)} are needed")
    if options[0] in options[1:]:
        raise TaskError(f"question {question_id!r} has its correct option among the incorrect ones: mend the data")
    # A hash for each option, and the options in the order of their hashes.
    order = sorted(range(len(options)), key=lambda i: hashlib.sha256(f"{question_id}\n{i}".encode()).digest())
    return Arrangement(tuple(options[i] for i in order), LETTERS[order.index(0)])
