"""Grades answers that have to contain all of several texts, as in RULER (arXiv 2404.06654): no box is needed."""

import re
from collections.abc import Sequence
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking

_LONGEST = 4000  # characters of an answer that are stored and looked at
_GROUPED = re.compile(r"(?<=\d)[,\u202f\u2009\u00a0](?=\d{3}(?!\d))")  # thousands of a number


class ContainsGrader(Grader):
    """The text after the thinking; right if every text of the target stands in it, as a word of its own.

    Case and spacing do not count, nor do commas between the thousands of a number.
    """

    name = "contains"

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The text after the thinking, its spacing folded; what was cut off counts as far as it goes."""
        answer = after_thinking(text)
        return None if answer is None or not answer.strip() else _fold_spacing(_GROUPED.sub("", answer))[:_LONGEST]

    def correct(self, answer: str, target: Any) -> bool:
        """Whether an answer contains all texts of the target, a list (or a single text)."""
        texts = [target] if isinstance(target, str) else target
        folded = _fold(answer)
        return all(_contains(folded, _fold(str(text))) for text in texts)

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether two answers are the same but for case and spacing."""
        return [_fold(first) == _fold(second) for first, second in pairs]


def _contains(text: str, part: str) -> bool:
    """Whether a part stands in a text and is not the middle of a longer word or number."""
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _fold(text: str) -> str:
    return _fold_spacing(text).casefold()


def _fold_spacing(text: str) -> str:
    return " ".join(text.split())
