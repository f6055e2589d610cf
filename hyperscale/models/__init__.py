"""Models by name: their checkpoints, shapes and defaults, known without loading weights."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.models.checkpoint import Checkpoint as Checkpoint
    from hyperscale.models.checkpoint import fingerprint as fingerprint
    from hyperscale.models.checkpoint import no_retrofit as no_retrofit
    from hyperscale.models.checkpoint import read_checkpoint_config as read_checkpoint_config
    from hyperscale.models.checkpoint import require as require
    from hyperscale.models.checkpoint import resolve as resolve
    from hyperscale.models.checkpoint import shape_of as shape_of
    from hyperscale.models.default_sampling import find_default_sampling as find_default_sampling
    from hyperscale.models.model import Model as Model
    from hyperscale.models.registry import add_revision as add_revision
    from hyperscale.models.registry import available as available
    from hyperscale.models.registry import find as find
    from hyperscale.models.registry import is_built_in as is_built_in
    from hyperscale.models.user_models import add_user_model as add_user_model
    from hyperscale.models.weights_identity import identify_weights as identify_weights

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": [
            "Checkpoint",
            "fingerprint",
            "no_retrofit",
            "read_checkpoint_config",
            "require",
            "resolve",
            "shape_of",
        ],
        "default_sampling": ["find_default_sampling"],
        "model": ["Model"],
        "registry": ["add_revision", "available", "find", "is_built_in"],
        "user_models": ["add_user_model"],
        "weights_identity": ["identify_weights"],
    },
)
