"""Models by name: their checkpoints and sizes, known without loading weights."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.models.registry import Checkpoint as Checkpoint
    from hyperscale.models.registry import Model as Model
    from hyperscale.models.registry import available as available
    from hyperscale.models.registry import find as find
    from hyperscale.models.registry import fingerprint as fingerprint
    from hyperscale.models.registry import no_retrofit as no_retrofit
    from hyperscale.models.registry import require as require
    from hyperscale.models.registry import resolve as resolve

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "registry": ["Checkpoint", "Model", "available", "find", "fingerprint", "no_retrofit", "require", "resolve"],
    },
)
