"""Generates tasks of long prompts of an exact length, of the kinds of RULER (arXiv 2404.06654): needles, variables."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.tasks.context.problems import ContextProblems as ContextProblems

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"problems": ["ContextProblems"]})
