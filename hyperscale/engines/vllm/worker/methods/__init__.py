"""The eviction methods as vLLM's workers run them, one file a method: each decides when entries expire.

`base` is the contract, `registry` finds a method by its name. Their definitions are those of `hyperscale.methods`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.worker.methods.base import WorkerMethod as WorkerMethod
    from hyperscale.engines.vllm.worker.methods.registry import create as create

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"base": ["WorkerMethod"], "registry": ["create"]}
)
