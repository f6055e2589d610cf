"""Grades answers as lm-eval does: filters find the answer in the text, and ``exact_match`` compares it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hyperscale.errors import TaskError, first_line
from hyperscale.scoring.graders.base import Grader, after_thinking

_LONGEST = 4000  # characters of an answer that are stored
#: What filters give where they find nothing: no text says it, and no filter changes it. A file's own ``fallback`` may
#: be what another text really says.
_NOTHING = "\uf8ff"
INSTALL = "install it with `pip install lm-eval`"


class LmEvalGrader(Grader):
    """What lm-eval's filters leave of the text after the thinking; right if ``exact_match`` says so.

    lm-eval is imported when something is graded, or by `prepare`: a reader of results does without.

    Args:
        filters: Names of lm-eval's filters, each with its arguments, in order.
        options: Arguments of ``exact_match``.
    """

    name = "exact_match"

    def __init__(self, filters: Sequence[tuple[str, Mapping[str, Any]]], options: Mapping[str, Any]) -> None:
        self._filters, self._options = tuple(filters), dict(options)
        self._pipeline: list[Any] | None = None

    def prepare(self) -> None:
        """Make the filters.

        Raises:
            TaskError: lm-eval is not installed, or refuses a filter's arguments.
        """
        self._made()

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """What the filters find; None if they find nothing."""
        answer = after_thinking(text)
        if answer is None:
            return None
        responses: list[Any] = [[answer]]  # of one problem, one response
        try:
            for step in self._made():
                responses = list(step.apply(responses, [{}]))
        except IndexError:  # of ``group_select``, where there are fewer matches
            return None
        found = responses[0]
        while isinstance(found, list | tuple):  # without take_first it is still a list
            found = found[0] if found else ""
        found = str(found)
        return None if not found.strip() or _NOTHING in found else found[:_LONGEST]

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the answer matches the target, or one of a list of targets."""
        from lm_eval.api.metrics import exact_match_fn

        targets = [str(text) for text in (target if isinstance(target, list) else [target])]
        predictions = [answer] * len(targets)
        return bool(exact_match_fn(predictions=predictions, references=targets, **self._options)["exact_match"] > 0)

    def _made(self) -> list[Any]:
        if self._pipeline is None:
            try:
                from lm_eval.filters import get_filter
            except ImportError as error:
                raise TaskError(f"a task in lm-eval's form is graded by lm-eval ({error.name}): {INSTALL}") from None
            try:
                self._pipeline = [
                    get_filter(name)(**{**kwargs, **({"fallback": _NOTHING} if name == "regex" else {})})
                    for name, kwargs in self._filters
                ]
            except (TypeError, ValueError) as error:
                raise TaskError(f"filter_list: {first_line(error)}") from None
        return self._pipeline
