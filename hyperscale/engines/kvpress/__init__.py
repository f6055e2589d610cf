"""The engine for presses of kvpress: transformers' own cache, one chain at a time.

`provider` states what it can, `engine` is what a run uses, `session` holds the cache of a chain and counts its entries.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.kvpress.engine import KVPressEngine as KVPressEngine

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"engine": ["KVPressEngine"]})
