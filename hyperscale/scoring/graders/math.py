r"""Grades expressions in ``\boxed{}``, as in MATH-500, by math-verify."""

import re
from collections.abc import Sequence
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.forms.boxes import last_box
from hyperscale.scoring.graders.forms.integers import canonical_integer
from hyperscale.scoring.graders.math_process import MathVerifier, get_shared_verifier

MAX_CHARS = 1_000
_MAX_VERDICTS = 20_000  # that are remembered

# Typography that changes no answer: spacing, sizes of brackets and fractions.
_SPACING = re.compile(r"\\[,;:!]|\\ |~|\\q?quad\b|\\left\b\.?|\\right\b\.?|\\?\$|\s+")
_FRACTION = re.compile(r"\\[dtc]frac\b")
_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}\\]*)\}")


def strip_typography(text: str) -> str:
    """An answer without typography that changes nothing: the form that is voted on."""
    number = canonical_integer(text)
    if number is not None:
        return number
    text = _SPACING.sub(lambda match: " " if match.group().isspace() else "", _FRACTION.sub(r"\\frac", text))
    text = _WORDS.sub(lambda match: f"\\text{{{match.group(1).strip()}}}", text)
    # A space counts only where it ends a command: \pi r, \text{a} b.
    text = re.sub(r"(\\[A-Za-z]+) (?=[A-Za-z])", "\\1\0", text).replace(" ", "").replace("\0", " ")
    return text.strip().removesuffix(".")


def bare_words(text: str) -> str | None:
    r"""The bare words of an answer that is text in whole or in part (``\text{June 20}``), or None if it has none."""
    bare = _WORDS.sub(lambda match: match.group(1), text)
    return None if bare == text or "\\" in bare else "".join(bare.split()).removesuffix(".")


class MathGrader(Grader):
    r"""The last balanced ``\boxed{}`` after the thinking, correct iff math-verify finds it equal to the target.

    math-verify runs in a process of its own with a limit on CPU time and memory, sees at most `MAX_CHARS` characters
    (a longer answer is wrong) and only parses them.
    """

    name = "math"
    cue = "\n\n\\boxed{"

    def __init__(self, verifier: MathVerifier | None = None) -> None:
        """Use the given verifier, or the process's shared one."""
        self._verifier = verifier
        self._verdicts: dict[tuple[str, str], bool] = {}

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The box's content in `strip_typography` form; cut to `MAX_CHARS` characters and one; None if empty."""
        answer = after_thinking(text)
        content = None if answer is None else last_box(answer, finished=finished)
        if content is None or not content.strip():
            return None
        content = content.strip()
        return content[: MAX_CHARS + 1] if len(content) > MAX_CHARS else strip_typography(content) or None

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
        undecided: list[tuple[str, str]] = []  # those that text alone does not settle
        for key in dict.fromkeys(keys):
            gold, answer = key
            if key in self._verdicts:
                continue
            if len(answer) > MAX_CHARS:
                self._verdicts[key] = False
            elif _equal_as_text(gold, answer):
                self._verdicts[key] = True
            else:
                undecided.append(key)
        if undecided:
            verifier = self._verifier or get_shared_verifier()
            self._verdicts.update(zip(undecided, verifier.compare(undecided), strict=True))
        return [self._verdicts[key] for key in keys]

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each two answers are one: the earlier is the later's target, or the other way round."""
        forth = self.correct_many(pairs)
        back = iter(self.correct_many([(b, a) for (a, b), equal in zip(pairs, forth, strict=True) if not equal]))
        return [equal or next(back) for equal in forth]


def _equal_as_text(gold: str, answer: str) -> bool:
    """Whether two answers are the same text but for typography, or the same words."""
    if strip_typography(answer) == strip_typography(gold):
        return True
    return (bare_words(gold) or strip_typography(gold)) == (bare_words(answer) or strip_typography(answer))
