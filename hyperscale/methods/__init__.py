"""KV-compression methods: one file each, registered by name in `registry`.

The bases that they share are in `core`; presses of kvpress become methods in `kvpress`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm as Arm
    from hyperscale.methods.registry import available as available
    from hyperscale.methods.registry import create as create
    from hyperscale.methods.registry import describe as describe
    from hyperscale.methods.registry import notes as notes
    from hyperscale.methods.registry import parameters as parameters
    from hyperscale.methods.registry import retrofit_kind as retrofit_kind

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arm": ["Arm"],
        "registry": ["available", "create", "describe", "notes", "parameters", "retrofit_kind"],
    },
)
