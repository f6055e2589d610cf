r"""Grades expressions in ``\boxed{}``, as in MATH-500."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.forms.boxes import last_box
from hyperscale.scoring.graders.maths.equality import Comparison, OutOfLimitsError, write_for_sympy
from hyperscale.scoring.graders.maths.latex import write_plain, write_readable
from hyperscale.scoring.graders.maths.process import MathVerifier, get_shared_verifier
from hyperscale.scoring.graders.maths.rationals import is_long_decimal, read_number, rounds_to

MAX_CHARS = 1_000
_MAX_VERDICTS = 20_000  # that are remembered
_WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]{0,30}")


class MathGrader(Grader):
    r"""The last ``\boxed{}`` after the thinking, correct iff it says what the target says.

    Structure, units, words and rational numbers are compared by `Comparison`; single expressions by math-verify, which
    runs in a process of its own with a limit on CPU time and memory and only parses them. An answer of more than
    `MAX_CHARS` characters is wrong.
    """

    name = "math"
    cue = "\n\n\\boxed{"

    def __init__(self, verifier: MathVerifier | None = None) -> None:
        """Use the given verifier, or the process's shared one."""
        self._verifier = verifier
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._comparison = Comparison(self._same_expression)
        self._equal_expressions: dict[tuple[str, str], bool] = {}
        self._comparison_of_votes = Comparison(self._same_either_way)

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The box's content in plain LaTeX; cut to `MAX_CHARS` characters and one; None if empty."""
        answer = after_thinking(text)
        content = None if answer is None else last_box(answer, finished=finished)
        if content is None or not content.strip():
            return None
        content = content.strip()
        return content[: MAX_CHARS + 1] if len(content) > MAX_CHARS else write_readable(write_plain(content)) or None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the answer equals the target, a LaTeX expression.

        Raises:
            TaskError: math-verify cannot be loaded.
        """
        return self.correct_many([(answer, target)])[0]

    def correct_many(self, pairs: Sequence[tuple[str, Any]]) -> list[bool]:
        """Verdicts in order; equal pairs are compared once."""
        keys = [(str(target), answer) for answer, target in pairs]
        if len(self._verdicts) > _MAX_VERDICTS:
            self._verdicts.clear()
        for key in keys:
            if key not in self._verdicts:
                target, answer = key
                self._verdicts[key] = len(answer) <= MAX_CHARS and self._comparison.equal(target, answer)
        return [self._verdicts[key] for key in keys]

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each two answers are one: the earlier is the later's target, or the other way round."""
        return [self._equal(*pair) for pair in pairs]

    def _equal(self, first: str, second: str) -> bool:
        # A vote compares each answer with several, and most of them are whole numbers.
        if first == second or (_WHOLE_NUMBER.fullmatch(first) and _WHOLE_NUMBER.fullmatch(second)):
            return first == second
        if max(len(first), len(second)) > MAX_CHARS:
            return False
        return self._comparison_of_votes.equal(first, second) or self._comparison_of_votes.equal(second, first)

    def _same_either_way(self, first: str, second: str) -> bool:
        """As `_same_expression`, in one order of the two, so that a pair is not computed again the other way round."""
        key = (min(first, second), max(first, second))
        if len(self._equal_expressions) > _MAX_VERDICTS:
            self._equal_expressions.clear()
        if key not in self._equal_expressions:
            self._equal_expressions[key] = self._same_expression(*key)
        return self._equal_expressions[key]

    def _same_expression(self, target: str, answer: str) -> bool:
        verifier = self._verifier or get_shared_verifier()
        for text, other in ((target, answer), (answer, target)):
            number = read_number(text)
            if number is not None and is_long_decimal(number) and read_number(other) is None:
                value = verifier.evaluate(write_for_sympy(other))
                if verifier.spent:
                    raise OutOfLimitsError
                return value is not None and rounds_to(number, Fraction(value))
        (same,) = verifier.compare([(write_for_sympy(target), write_for_sympy(answer))])
        if verifier.spent:  # the same part in the next pairing would take as long again
            raise OutOfLimitsError
        return same
