"""Defines what a grader is, and where in a chain's text an answer may stand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from hyperscale.models import thinking

_LONGEST = 32_000  # characters of an answer that is a whole text


def after_thinking(text: str) -> str | None:
    """The part of a text that may hold its answer: what follows the thinking (`hyperscale.models.thinking`).

    None if a thinking was opened, by the prompt or in the text, and never ended: it has no answer, whatever stands in
    it. A text without any thinking counts whole.
    """
    return thinking.answer_text(text)


def keep_ends(answer: str) -> str:
    """An answer as it is stored and graded: of one that is very long the beginning and, where it concludes, the end."""
    if len(answer) <= _LONGEST:
        return answer
    head = _LONGEST // 4
    return f"{answer[:head]} … {answer[head - _LONGEST :]}"


class Grader(ABC):
    """Finds a chain's answer in its text and compares it with the target; verdicts depend on nothing else.

    Attributes:
        name: As task files write it.
        compares_values: Whether answers that are equal to the same target are one and the same. Programs are not.
        cue: How an answer begins in the form that the grader reads: what is put behind a chain that does not think when
            it has to answer.
    """

    name: str
    cue: str = ""
    compares_values: bool = True

    def prepare(self) -> None:
        """Load what verdicts need, so that what is missing is said before anything is generated.

        Raises:
            TaskError: Something is missing.
        """
        return

    @abstractmethod
    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The answer a chain's text states, in the form that is stored; None if it states none.

        Args:
            text: Thinking, its end, and answer, as generated, behind the mark that the prompt opened, if it did; it may
                be cut anywhere.
            finished: Whether the model ended the text itself, None if that is not known. What a cut-off text had only
                begun to state is no answer.
        """

    @abstractmethod
    def correct(self, answer: str, target: Any) -> bool:
        """Whether an extracted answer solves the problem.

        Args:
            answer: As returned by `extract`.
            target: The problem's target, JSON-able; its form is the grader's own.
        """

    def correct_many(self, pairs: Sequence[tuple[str, Any]]) -> list[bool]:
        """`correct` for many (answer, target) pairs, in order."""
        return [self.correct(answer, target) for answer, target in pairs]

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each two extracted answers are one and the same: then they are one candidate of a vote.

        Graders whose answers have several forms say more than this, which compares the texts.
        """
        return [first == second for first, second in pairs]
