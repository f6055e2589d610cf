"""Chooses among options by the likelihood that a model gives them, as lm-eval does for multiple choice."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hyperscale.scoring.graders.base import Grader

GREEDY = "greedy"
"""Answer of a problem whose one text is what greedy decoding would give."""
_NOT_GREEDY = "not greedy"


class Scored(Protocol):
    """An option with what a model makes of it."""

    @property
    def text(self) -> str:
        """The option."""

    @property
    def logprob(self) -> float:
        """Sum of the log-probabilities of its tokens."""

    @property
    def greedy(self) -> bool:
        """Whether each token was the most probable one."""


#: What each metric divides a log-probability by.
_SIZES: dict[str, Callable[[str], int]] = {
    "acc": lambda _: 1,
    "acc_norm": len,
    "acc_bytes": lambda text: len(text.encode()),
}
METRICS = tuple(_SIZES)
"""Metrics of multiple choice that give each problem a verdict, by their names in lm-eval."""


class LikelihoodGrader(Grader):
    """The most likely option, by its place from 0; right if that place is the target or one of several.

    Args:
        metric: ``acc`` for the largest log-probability, ``acc_norm`` for the largest by character, ``acc_bytes`` by
            byte; ``greedy`` for problems of one text, which is right if greedy decoding would give it.
    """

    name = "likelihood"
    compares_values = False

    def __init__(self, metric: str) -> None:
        assert metric in (*METRICS, GREEDY), metric
        self.metric = metric

    def choose(self, options: Sequence[Scored]) -> str:
        """The answer: the place of the chosen option, the first of several that are as likely."""
        if self.metric == GREEDY:
            return GREEDY if options[0].greedy else _NOT_GREEDY
        size = _SIZES[self.metric]
        scores = [option.logprob / size(option.text) for option in options]
        return str(scores.index(max(scores)))

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """None: an answer is no text here (`choose`)."""
        return None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the chosen place is among those of the target, a list of texts."""
        return answer in target
