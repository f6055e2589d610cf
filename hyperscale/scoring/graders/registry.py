"""Makes graders by the names that task files use."""

from collections.abc import Callable, Iterable

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.base import Grader
from hyperscale.scoring.graders.choice import ChoiceGrader
from hyperscale.scoring.graders.code import CodeGrader
from hyperscale.scoring.graders.contains import ContainsGrader
from hyperscale.scoring.graders.integer import IntegerGrader
from hyperscale.scoring.graders.livecodebench import LiveCodeBenchGrader
from hyperscale.scoring.graders.math import MathGrader

_FACTORIES: dict[str, Callable[[], Grader]] = {
    "integer": IntegerGrader,
    "math": MathGrader,
    "choice": ChoiceGrader,
    "code": CodeGrader,
    "livecodebench": LiveCodeBenchGrader,
    "contains": ContainsGrader,
}


def names() -> list[str]:
    """The names of all graders."""
    return list(_FACTORIES)


def select_program_graders(graders: Iterable[str]) -> set[str]:
    """The names of those graders that run programs; graders of users' own do not."""
    factories = {name: _FACTORIES[name] for name in graders if name in _FACTORIES}
    return {name for name, kind in factories.items() if isinstance(kind, type) and issubclass(kind, CodeGrader)}


def get(name: str, options: int | None = None) -> Grader:
    """A new grader.

    Args:
        name: Its name.
        options: How many options the questions have, for the choice grader; None for four.

    Raises:
        TaskError: No grader has that name.
    """
    if name not in _FACTORIES:
        raise TaskError(f"unknown grader {name!r}; known graders: {', '.join(names())}")
    return ChoiceGrader(options) if name == ChoiceGrader.name and options else _FACTORIES[name]()
