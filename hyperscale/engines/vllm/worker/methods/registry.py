"""Finds the worker's side of a method by its name."""

from typing import Any

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.dms import WorkerDMS
from hyperscale.engines.vllm.worker.methods.window import WorkerWindow
from hyperscale.engines.vllm.worker.tables import EntryTables


def create(tables: EntryTables, options: Options, first_head: int, all_heads: int) -> WorkerMethod:
    """The method that the options name.

    Args:
        tables: The worker's tables.
        options: The engine's options.
        first_head: This worker's first KV head among all.
        all_heads: KV heads of a layer of the whole model.
    """
    if options.method == "random":
        from hyperscale.engines.vllm.worker.methods.random_eviction import WorkerRandom

        return WorkerRandom(tables, options, first_head, all_heads)
    # "hashed" differs from DMS in where its verdicts come from, which is the model's business.
    classes: dict[str, type[WorkerMethod]] = {
        "none": WorkerMethod,
        "dms": WorkerDMS,
        "hashed": WorkerDMS,
        "window": WorkerWindow,
    }
    return classes[options.method](tables, options)


def create_for_worker(tables: EntryTables, spec: Any) -> WorkerMethod:
    """The method of this process, which knows the worker's place among the tensor-parallel ranks.

    Args:
        tables: The worker's tables.
        spec: The cache's `RaggedSpec`.
    """
    from vllm.distributed import get_tensor_model_parallel_rank

    first_head = get_tensor_model_parallel_rank() * tables.heads
    return create(tables, spec.options, first_head, spec.total_lists // tables.layers)
