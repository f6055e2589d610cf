r"""Grades integers in ``\boxed{}``, as in AIME: what is equal to the integer is right."""

from collections.abc import Sequence
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.forms.boxes import last_box
from hyperscale.scoring.graders.forms.integers import MAX_CHARS, canonical_integer, read_answer
from hyperscale.scoring.graders.math import MathGrader


class IntegerGrader(Grader):
    r"""The last box after the thinking; right if it is equal to the target, by its form or by the maths grader.

    Anything else is wrong, not an error.
    """

    name = "integer"
    cue = "\n\n\\boxed{"

    def __init__(self, math: MathGrader | None = None) -> None:
        """Use the given maths grader for what no form explains, or one of its own."""
        self._math = math or MathGrader()

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        r"""The canonical integer of the last box, or the box's text if no form explains it."""
        answer = after_thinking(text)
        content = None if answer is None else last_box(answer, finished=finished)
        if content is None or not content.strip():
            return None
        if len(content) <= MAX_CHARS:
            return read_answer(content).number or content.strip()
        number = canonical_integer(content)
        # What is no integer is stored, so it must not be long.
        return f"{content.strip()[:MAX_CHARS]}…" if number is None else number

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the answer is equal to the target integer (an int or its text)."""
        return self.equal_many([(answer, canonical_integer(str(target)) or str(target))])[0]

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each two answers are the same integer, or the same expression."""
        verdicts: dict[int, bool] = {}
        expressions: dict[int, tuple[str, str]] = {}
        for place, (first, second) in enumerate(pairs):
            one, other = read_answer(first), read_answer(second)
            if one.number is not None and other.number is not None:
                verdicts[place] = one.number == other.number
            elif first == second and one.number is None:
                verdicts[place] = True
            else:
                texts = one.number or one.expression, other.number or other.expression
                if texts[0] is None or texts[1] is None:
                    verdicts[place] = False
                else:
                    expressions[place] = texts[0], texts[1]
        if expressions:
            verdicts.update(zip(expressions, self._math.equal_many(list(expressions.values())), strict=True))
        return [verdicts[place] for place in range(len(pairs))]
