"""The CUDA backend: a step's attention through the kernels, which evict, write and allocate on the device."""

from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionBackend, AttentionCGSupport, AttentionMetadataBuilder

from hyperscale.engines.vllm.backends.base import RaggedImpl
from hyperscale.engines.vllm.kernels import decode_fa3
from hyperscale.engines.vllm.kernels.arguments import Pool
from hyperscale.engines.vllm.kernels.chunk_attention import prefill_attention
from hyperscale.engines.vllm.kernels.chunk_dms_expiry import delayed_expiries
from hyperscale.engines.vllm.kernels.chunk_plan import plan_chunks
from hyperscale.engines.vllm.kernels.chunk_reads import seen
from hyperscale.engines.vllm.kernels.chunk_write import write_survivors
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.kernels.decode_update import decode_update
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.cuda import CudaStep, CudaWorker
from hyperscale.engines.vllm.worker.rules import rule_of
from hyperscale.engines.vllm.worker.slots import Slots, tables
from hyperscale.engines.vllm.worker.staged_tables import StagedLists
from hyperscale.errors import EngineError

_SPLITS = 32  # parts of a list under a CUDA graph, vLLM's own number
_SPLITS_UNTIL = 992  # sequences up to which FA3 takes a number of parts as a bound


class _Tokens(NamedTuple):
    """A layer's tokens, as `RaggedImpl.attend` has them."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    verdicts: Tensor | None
    out: Tensor

    def first(self, count: int) -> "_Tokens":
        """The first so many."""
        return _Tokens(*(None if part is None else part[:count] for part in self))  # type: ignore[arg-type]


class CudaRaggedBuilder(AttentionMetadataBuilder[CudaStep]):
    """Describes a step to the attention layers, without asking the device anything."""

    reorder_batch_threshold: int | None = 1  # the older model runner then puts decode steps first; the newer one always

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        """Whole decode steps only where asked for; else vLLM records what lies between the attention layers."""
        full = kv_cache_spec.options.full_graphs
        return AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE if full else AttentionCGSupport.NEVER

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> CudaStep:
        """See vLLM's base class."""
        common = common_attn_metadata
        starts = common.query_start_loc_cpu[: common.num_reqs + 1].tolist()
        sizes = [b - a for a, b in pairwise(starts)]
        while sizes and not sizes[-1]:  # rows of a batch that is padded to the size of a graph
            sizes.pop()
        n = len(sizes)
        return CudaStep(
            first_blocks=common.block_table_tensor[:n, 0],
            offsets=common.query_start_loc[: n + 1],
            covered=common.seq_lens[:n],
            starts=starts[: n + 1],
            decodes=next((index for index, size in enumerate(sizes) if size != 1), n),
            longest=int(common.max_seq_len),
        )

    def build_for_cudagraph_capture(self, common_attn_metadata: Any) -> CudaStep:
        """See vLLM's base class."""
        step = self.build(0, common_attn_metadata)
        step.capturing = True
        return step


class CudaRaggedImpl(RaggedImpl):
    """Attention by the kernels."""

    def attend(
        self,
        step: CudaStep,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        logits: Tensor | None,
        out: Tensor,
    ) -> None:
        """See `RaggedImpl.attend`."""
        worker = Slots.current
        if worker is None:  # vLLM measures what graphs take before there is a cache
            out.zero_()
            return
        assert isinstance(worker, CudaWorker), "the cache was set up by another backend"
        step = worker.resolve(step)
        tokens = _Tokens(queries, keys, values, None if logits is None else logits > 0, out)
        if step.decodes:
            self._decode(worker, step, layer, tokens.first(step.decodes))
        if step.chunks is not None:
            self._chunks(worker, step, layer, tokens.first(step.tokens))

    def _decode(self, worker: CudaWorker, step: CudaStep, layer: int, tokens: _Tokens) -> None:
        assert step.rows is not None
        queries, keys, values, verdicts, out = tokens
        lists, n, heads = worker.lists, step.decodes, keys.shape[1]
        live, table = lists.live[:n], lists.table[:n]
        decode_update(
            lists,
            worker.pool,
            layer,
            step.rows,
            keys,
            values,
            live,
            table,
            verdicts=verdicts,
            window=worker.rule.options.window,
            born=step.born,
        )
        shape = (n, heads, self.num_heads // heads, self.head_size)
        given = (queries.view(shape), worker.pool, live, table, out.view(shape))
        if worker.fa3:
            # A graph needs a fixed number. With very many sequences FA3 may take it for more than a bound.
            splits = 0 if not step.capturing else _SPLITS if n * heads <= _SPLITS_UNTIL else 1
            decode_fa3.decode_attention(*given, lists.ramp, self.scale, step.longest, splits)
        else:
            decode_attention(*given, self.scale, step.longest)

    def _chunks(self, worker: CudaWorker, step: CudaStep, layer: int, tokens: _Tokens) -> None:
        queries, keys, values, verdicts, out = tokens
        lists, pool, chunks, heads = worker.lists, worker.pool, step.chunks, keys.shape[1]
        assert chunks is not None
        if verdicts is not None:
            expiry = delayed_expiries(lists, layer, chunks, verdicts, worker.rule.options.window)
        elif step.born_in is not None:
            expiry = step.born_in.expand(heads, -1).contiguous()
        else:
            expiry = torch.full((heads, len(keys)), NEVER, dtype=torch.int32, device=keys.device)
        plan = plan_chunks(lists, layer, chunks, expiry)
        if step.since is not None and step.seen is not None:
            step.seen += seen(lists, layer, chunks, plan, step.since).sum(0)
        prefill_attention(lists, pool, layer, chunks, plan, queries, keys, values, out, self.scale)
        write_survivors(lists, pool, layer, chunks, plan, keys, values)


class CudaRaggedBackend(AttentionBackend):
    """Ragged attention on CUDA."""

    forward_includes_kv_cache_update: ClassVar[bool] = True

    @staticmethod
    def get_name() -> str:
        """The place in vLLM's registry that is open to plugins."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> Any:
        """The class that attends."""
        return CudaRaggedImpl

    @staticmethod
    def get_builder_cls() -> Any:
        """The class that describes a step."""
        return CudaRaggedBuilder

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        """The cache tensor in vLLM 0.26: (blocks, lists, N, 2 * head_dim)."""
        return num_blocks, num_kv_heads, block_size, 2 * head_size

    @classmethod
    def supported_kv_cache_layouts(cls) -> Any:
        """The same in later versions."""
        from vllm.v1.kv_cache_interface import KVCacheLayout

        return (KVCacheLayout.LBHNC,)

    @staticmethod
    def worker(vllm_config: Any, spec: Any, cache: Tensor) -> CudaWorker:
        """The worker around the cache tensor that vLLM has allocated, (blocks, lists, N, 2 * head_dim).

        Raises:
            EngineError: FlashAttention 3 was asked for and is not there.
        """
        lists = tables(vllm_config, spec, StagedLists, len(cache), cache.device)
        asked = spec.options.decode
        can = decode_fa3.available() and cache.dtype != torch.float32
        if asked == "fa3" and not can:
            raise EngineError(
                "additional_config.hyperscale.decode is 'fa3', which needs Hopper and half precision: leave it out"
            )
        return CudaWorker(lists, rule_of(lists, spec), Pool.of(cache), can and asked != "triton")
