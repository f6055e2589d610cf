"""Attention backends for vLLM, one a device: the way from vLLM's batch to the mechanism (CPU) or the kernels (CUDA)."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.backends.select import backend_class as backend_class

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"select": ["backend_class"]})
