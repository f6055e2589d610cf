"""The engine that ``hyperscale run --engine vllm`` uses.

`provider` says what it can run, `engine` generates, `whole_chain` and `steered_chains` make chains of what comes back,
`engine_args` works out vLLM's arguments, `start` and `process_end` start vLLM and notice its end, `logits_processor`
draws the tokens on the CPU.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine as VllmEngine

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"engine": ["VllmEngine"]})
