"""The eviction methods as vLLM's workers run them, one file a method: each decides when entries expire.

`base` is the contract, `registry` finds a method by its name. Their definitions are those of `hyperscale.methods`.

There are two kinds. Methods that decide by expiries (dms, window, random) are written here once more, for speed and
for preemption. All others are `hosted`: their own `State` of `hyperscale.methods` runs on the lists. `model_shape`
tells it of the model, and `stored_state` keeps by slot what it knows of requests.

To add a method of `hyperscale.methods`:

1. its name in `hyperscale.engines.vllm.method_names` (HOSTED);
2. `Method.prompt_queries`, if its state looks at a prompt's queries, and `State.reserve`, if it widens tensors;
3. a test against the torch engine, in tests/engines/vllm/test_vllm_hosted.py and test_vllm_cuda.py.

A method that follows from positions or verdicts alone may have a file here instead: the hooks of `WorkerMethod` that
it needs, its class in `registry`, its entries in `Options.expected_entries`, and on CUDA a kernel that sets expiries.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.worker.methods.base import WorkerMethod as WorkerMethod
    from hyperscale.engines.vllm.worker.methods.registry import create as create

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"base": ["WorkerMethod"], "registry": ["create"]}
)
