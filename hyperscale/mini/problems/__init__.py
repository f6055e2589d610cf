"""Generates problems of three kinds, each with a chain of thought that a small model can learn."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.mini.problems.worked_problem import WorkedProblem as WorkedProblem
    from hyperscale.mini.problems.worked_problem import is_test as is_test

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "worked_problem": ["WorkedProblem", "is_test"],
    },
)
