"""The engines of a run: what its arms are built from, which of them share a process, and what stays in memory."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.run.engines.cache import EngineCache as EngineCache

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"cache": ["EngineCache"]})
