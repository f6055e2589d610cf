"""Graders: from a text to its answer, and whether the answer is right."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.scoring.graders.registry import available as available
    from hyperscale.scoring.graders.registry import get as get
    from hyperscale.scoring.graders.registry import running_programs as running_programs

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "registry": ["available", "get", "running_programs"],
    },
)
