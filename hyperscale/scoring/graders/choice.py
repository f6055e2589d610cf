"""Grades multiple choice: ``Answer: X``, as in GPQA."""

import re
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking

# Emphasis, brackets, quotation marks and a box around the letter are understood; a word that merely starts with it is
# no letter.
_ANSWER = re.compile(
    r"\banswer[\s*_]{0,4}[:\uff1a][\s*_$(\[`\"'\u201c]{0,8}(?:\\(?:boxed|text|mathrm|textbf)\s*\{[\s(]*)*"
    r"(?-i:([A-J]))(?![A-Z0-9_]|'[A-Z])",
    re.IGNORECASE,
)


class ChoiceGrader(Grader):
    """The letter of the last ``Answer: X`` after the thinking."""

    name = "choice"

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The letter, upper case as written, or None."""
        answer = after_thinking(text)
        letters = [] if answer is None else _ANSWER.findall(answer)
        return str(letters[-1]) if letters else None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the letter is the target's."""
        return answer == str(target).strip().upper()
