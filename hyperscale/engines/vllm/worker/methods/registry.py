"""Finds the worker's side of a method by its name."""

from typing import Any

from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.dmc import WorkerDMC
from hyperscale.engines.vllm.worker.methods.dms import WorkerDMS
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.methods.interval import WorkerInterval
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.methods.window import WorkerWindow
from hyperscale.engines.vllm.worker.staged_tables import StagedTables
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.kv.formats import AUTO
from hyperscale.methods.core.interval import IntervalMethod


def create(
    tables: EntryTables,
    options: Options,
    first_head: int,
    all_heads: int,
    shape: ModelShape | None = None,
    max_tokens: int = 0,
) -> WorkerMethod:
    """The method that the options name.

    Args:
        tables: The worker's tables.
        options: The engine's options.
        first_head: This worker's first KV head among all.
        all_heads: KV heads of a layer of the whole model.
        shape: What hosted methods and dmc are told of the model.
        max_tokens: Most tokens of a request, likewise.

    Raises:
        MethodError: A hosted method cannot run on this model, or not with these parameters.
    """
    if options.hosted:
        assert shape is not None, "hosted methods are told of the model"
        method = options.make_method()
        if isinstance(method, IntervalMethod):
            return WorkerInterval(tables, options, method, shape, max_tokens)
        return WorkerHosted(tables, options, method, shape, max_tokens)
    if options.method == "dmc":
        assert shape is not None, "dmc is told of the model"
        return WorkerDMC(tables, options, shape)
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


def create_for_worker(tables: EntryTables, spec: Any, vllm_config: Any, options: Options | None = None) -> WorkerMethod:
    """The method of this process, which knows the worker's place among the tensor-parallel ranks.

    Args:
        tables: The worker's tables.
        spec: The cache's `RaggedSpec`.
        vllm_config: vLLM's configuration.
        options: The arm's; those that the engine starts with if None.
    """
    from vllm.distributed import get_tensor_model_parallel_rank

    first_head = get_tensor_model_parallel_rank() * tables.heads
    model = vllm_config.model_config
    heads = model.get_num_attention_heads(vllm_config.parallel_config)
    shape = ModelShape(heads, model.get_head_size(), model.dtype, model.hf_config)
    return create(
        tables, options or spec.options, first_head, spec.total_lists // tables.layers, shape, model.max_model_len
    )


def most_bytes(spec: Any, vllm_config: Any) -> int:
    """Bytes that the methods of an engine's arms keep beside the tables on CUDA, of the arm that keeps most.

    They are made on the device "meta", where tensors take no memory.
    """
    keeping = [options for options in spec.all_arms if options.hosted or options.method == "dmc"]
    if not keeping:  # the others keep nothing
        return 0
    tables = StagedTables.for_engine(vllm_config, spec, 1, "meta")
    return max(_bytes_of(create_for_worker(tables, spec, vllm_config, options)) for options in keeping)


def _bytes_of(method: WorkerMethod) -> int:
    """Bytes of all tensors that a method refers to, but the tables."""
    use_kernels(method)
    if isinstance(method, WorkerHosted) and not method.by_slot:
        method.stored.fit()
    seen, sizes, waiting = {id(method.tables)}, dict[int, int](), list[Any]([method])
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            storage = value.untyped_storage()  # which several tensors may share
            sizes[storage._cdata] = storage.nbytes()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
        elif type(value).__module__.startswith("hyperscale."):
            waiting += vars(value).values()
    return sum(sizes.values())


def use_kernels(method: WorkerMethod) -> None:
    """Let kernels take what they can of a method's work, before there is any request; on CUDA."""
    if isinstance(method, WorkerInterval):
        method.use_kernels()
    elif isinstance(method, WorkerHosted):
        from hyperscale.engines.vllm.worker.methods.fused_pages import FusedPages
        from hyperscale.engines.vllm.worker.methods.fused_plan import FusedPlan
        from hyperscale.engines.vllm.worker.methods.fused_victims import FusedVictims

        kinds: tuple[type[FusedPlan | FusedVictims | FusedPages], ...] = FusedPlan, FusedVictims, FusedPages
        if method.method.weighs_prompts and method.options.kv_dtype == AUTO:  # the kernel reads keys as they are
            from hyperscale.engines.vllm.worker.methods.queries.received_attention import ReceivedAttention

            method.received = ReceivedAttention(method.tables)
        method.fused = next((kind(method) for kind in kinds if kind.serves(method)), None)
