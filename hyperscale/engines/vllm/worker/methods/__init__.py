"""The eviction methods as vLLM's workers run them, one file a method: each decides when entries expire.

`base` is the contract, `registry` finds a method by its name. Their definitions are those of `hyperscale.methods`.

To add a method:

1. its name in `hyperscale.engines.vllm.method_names`, and its class in `registry`;
2. a file here, with the hooks of `WorkerMethod` that it needs: they set expiries, `reference_attention` does the rest;
3. `Options.expected_entries`: how many entries of a list admission expects to be live at a request's end;
4. a test against the torch engine, as in tests/engines/vllm/test_vllm_engine.py. It runs on the CPU then;
5. on CUDA: DMS's expiries come from verdicts (`decode_update`, `chunk_dms_expiry`), window's from positions alone
   (`CudaCacheWorker.resolve_step`). A method that is neither needs a kernel that sets expiries before `decode_update`;
   until it has one, refuse it in `plugin.refusals` and `harness.engine_args.check_method`, as random is. No kernel
   keeps scores of attention yet.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.worker.methods.base import WorkerMethod as WorkerMethod
    from hyperscale.engines.vllm.worker.methods.registry import create as create

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"base": ["WorkerMethod"], "registry": ["create"]}
)
