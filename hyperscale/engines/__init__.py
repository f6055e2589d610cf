"""Engines: each runs a model under a KV-compression method, and turns requests into finished chains with their costs.

Read `base` first: it is the contract. `provider` is what an engine states about itself, `registry` the list of engines.
`torch` is the reference engine, `kvpress` runs presses of kvpress, `vllm` is a plugin for vLLM and the engine on it.
The other modules are shared by engines: loading, sampling, steering, decoding, a chain in flight.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.base import Branch as Branch
    from hyperscale.engines.base import Chain as Chain
    from hyperscale.engines.base import ChainProgress as ChainProgress
    from hyperscale.engines.base import Engine as Engine
    from hyperscale.engines.base import Request as Request
    from hyperscale.engines.base import Sampling as Sampling
    from hyperscale.engines.base import Steering as Steering
    from hyperscale.engines.loading import load_model as load_model
    from hyperscale.engines.provider import EngineProvider as EngineProvider
    from hyperscale.engines.provider import EngineSpec as EngineSpec
    from hyperscale.engines.registry import assign as assign
    from hyperscale.engines.registry import available as available
    from hyperscale.engines.registry import choose as choose
    from hyperscale.engines.registry import get as get

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Branch", "Chain", "ChainProgress", "Engine", "Request", "Sampling", "Steering"],
        "loading": ["load_model"],
        "provider": ["EngineProvider", "EngineSpec"],
        "registry": ["assign", "available", "choose", "get"],
    },
)
