"""vLLM with a KV cache whose heads evict by themselves, as a plugin: see docs/vllm-internals.md.

A *list* is what one KV head of one layer keeps of one request: entries in single-head *pages* of N tokens. vLLM's block
is a *superblock*: one page for every list of a worker, as many bytes as a dense block of N tokens. The scheduler hands
superblocks to requests; within a request the worker gives their pages to whichever list needs one. A *slot* is the
place of a running request in the worker's tables.

The life of a request, and the files that it passes through:

1. Start. vLLM calls `plugin.register` in each of its processes. `plugin.configure` sets and refuses settings;
   `model.models` builds the model, and `model.layer` gives it attention layers with one cache for all of them, which
   `cache_spec` describes to vLLM.
2. Arrival. `plugin.connector` passes the request to `scheduler.channel`, which registers it with the allocator and
   opens its costs (`scheduler.costs`).
3. Admission. vLLM asks `scheduler.manager` how many blocks a request needs; the answer, and with it whether the request
   may start, is `scheduler.superblocks`' (`SuperblockAllocator.count_to_admit`).
4. Superblocks for a step. The same class gives the request what it can need at most (`upper_bound`), and
   `scheduler.channel` puts them into the step's message (`step_messages`, of the data in `protocol`).
5. The worker's tables. `worker.cache_worker` takes the message, finds or opens a slot, and writes the superblocks
   into the tables (`worker.tables`; on CUDA `worker.staged_tables`, in one copy).
6. Attention. `model.self_attention` computes DMS's verdicts, `backends.cpu` or `backends.cuda` takes the batch apart
   into decode steps and chunks. On the CPU `worker.reference_attention` asks the method (`worker.methods`) what
   expires, writes and attends; on CUDA the kernels do (`kernels.decode_update`, `kernels.decode_attention`,
   `kernels.chunk.plan` and their siblings).
7. Report. `worker.cpu` or `worker.cuda` reports pages and live entries; `scheduler.output_hook` has them booked before
   vLLM frees finished requests. Superblocks that are not needed go back to the pool (`record_usage`).
8. Costs. `scheduler.costs` adds up reads and peaks; the response has them in ``kv_transfer_params``, where
   `harness.engine`, the engine of ``hyperscale run``, reads them.

Imports run one way: options and protocol, kernels, scheduler and worker (which do not know each other), backends,
model, plugin, harness.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.engines.vllm.harness.engine import VllmEngine as VllmEngine
    from hyperscale.engines.vllm.options import Options as Options

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"harness.engine": ["VllmEngine"], "options": ["Options"]}
)
