"""Grades answers with a function of the user's own: ``module:function``, called with the answer and the target."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.base import Grader, after_thinking, keep_ends
from hyperscale.utils.user_functions import describe_failure, find_source, load_function
from hyperscale.utils.validation import shorten


class FunctionGrader(Grader):
    """The text after the thinking; right if the user's function says so.

    Its module is run when a verdict is asked for, or by `prepare`: a reader of results runs no code.

    Args:
        function: ``module:function``; ``function(answer, target)`` returns true or false.
        folder: Where the module stands, if it is no installed one.
    """

    def __init__(self, function: str, folder: Path) -> None:
        self.name = function
        self._folder = folder
        self._function: Callable[[str, Any], Any] | None = None

    def prepare(self) -> None:
        """Load the function.

        Raises:
            TaskError: There is no such function, or its module fails.
        """
        self._loaded()

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The text after the thinking, without the space around it."""
        return keep_ends((after_thinking(text) or "").strip()) or None

    def correct(self, answer: str, target: Any) -> bool:
        """What the function says.

        Raises:
            TaskError: It cannot be loaded, raises, or returns neither true nor false.
        """
        function = self._loaded()
        try:
            verdict = function(answer, target)
        except Exception as error:  # whatever the user's function does
            source = find_source(self.name, self._folder) or self.name
            raise TaskError(
                f"grader {self.name}: {describe_failure(error, source)}, with the answer {shorten(answer)} and the "
                f"target {shorten(target)}: a grader returns false for an answer that it cannot read"
            ) from None
        # Truth values of numpy and sympy are neither of Python's, but equal to them; 0.5 is no verdict.
        try:
            is_verdict = verdict in (True, False)
        except Exception:  # several values, or one that is missing, refuse to be compared
            is_verdict = False
        if not is_verdict:
            raise TaskError(
                f"grader {self.name} returns {shorten(verdict)} for the answer {shorten(answer)}: it must return true "
                "or false"
            )
        return bool(verdict)

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether two answers are the same but for spacing."""
        return [first.split() == second.split() for first, second in pairs]

    def _loaded(self) -> Callable[[str, Any], Any]:
        if self._function is None:
            self._function = load_function(self.name, self._folder, TaskError)
        return self._function
