"""The CUDA backend: a step's attention through the kernels, which evict, write and allocate on the device."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionBackend, AttentionCGSupport, AttentionMetadataBuilder

from hyperscale.engines.vllm.backends.base import RaggedBackendMixin, RaggedImpl
from hyperscale.engines.vllm.kernels import decode_fa3
from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.kernels.chunk import fa3 as chunk_fa3
from hyperscale.engines.vllm.kernels.chunk.append import append_chunks
from hyperscale.engines.vllm.kernels.chunk.attention import chunk_attention
from hyperscale.engines.vllm.kernels.chunk.plan import Verdicts, plan_chunks
from hyperscale.engines.vllm.kernels.chunk.received import LogSums
from hyperscale.engines.vllm.kernels.chunk.write import store_survivors
from hyperscale.engines.vllm.kernels.decode.balanced_attention import FEW_LISTS, balanced_attention
from hyperscale.engines.vllm.kernels.decode.token_merge import merge_tokens
from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
from hyperscale.engines.vllm.kernels.decode_update import decode_update
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
from hyperscale.engines.vllm.worker.cuda import CudaCacheWorker
from hyperscale.engines.vllm.worker.cuda_step import CudaStep
from hyperscale.engines.vllm.worker.methods import registry
from hyperscale.engines.vllm.worker.methods.dmc import WorkerDMC
from hyperscale.engines.vllm.worker.methods.fused import DecodeLayer
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.methods.interval import WorkerInterval
from hyperscale.engines.vllm.worker.staged_tables import StagedTables
from hyperscale.errors import EngineError
from hyperscale.kv.formats import AUTO

_GRAPH_SPLITS = 32  # parts of a list under a CUDA graph, vLLM's own number
_MAX_SPLIT_SEQUENCES = 992  # sequences up to which FA3 takes a number of parts as a bound


class _LayerTokens(NamedTuple):
    """A layer's tokens, as `RaggedImpl.attend` has them."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    logits: Tensor | None
    out: Tensor

    def first(self, count: int) -> "_LayerTokens":
        """The first ``count`` tokens."""
        if count == len(self.queries):
            return self
        return _LayerTokens(*(None if part is None else part[:count] for part in self))  # type: ignore[arg-type]


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
            computed_tokens=common.seq_lens[:n],
            starts=starts[: n + 1],
            num_decodes=next((index for index, size in enumerate(sizes) if size != 1), n),
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
        worker = CacheWorker.current
        if worker is None:  # vLLM measures what graphs take before there is a cache
            out.zero_()
            return
        assert isinstance(worker, CudaCacheWorker), "the cache was set up by another backend"
        step = worker.resolve_step(step)
        tokens = _LayerTokens(queries, keys, values, logits, out)
        if step.num_decodes:
            self._decode(worker, step, layer, tokens.first(step.num_decodes))
        if step.chunks is not None:
            self._attend_chunks(worker, step, layer, tokens.first(step.tokens))
        if layer == worker.tables.layers - 1:
            worker.gather_report(step)

    def merge(
        self,
        step: CudaStep,
        layer: int,
        positions: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        logits: Tensor,
    ) -> None:
        """See `RaggedImpl.merge`."""
        worker = CacheWorker.current
        if worker is None:
            return
        assert isinstance(worker, CudaCacheWorker), "the cache was set up by another backend"
        step, method = worker.resolve_step(step), worker.method
        assert isinstance(method, WorkerDMC), "only dmc merges"
        assert step.slots is not None
        tokens = [part[: step.tokens] for part in (positions, queries, keys, values, logits)]
        if step.chunks is None:
            positions, queries, keys, values, logits = tokens
            config = method.config
            arguments = (positions, step.slots, method.sums[layer], config.alpha_scale, config.initial_offset)
            merge_tokens(queries, keys, values, logits, *arguments)
        else:
            method.merge(layer, step.slots, step.offsets, step.chunks.longest, *tokens)

    def _decode(self, worker: CudaCacheWorker, step: CudaStep, layer: int, tokens: _LayerTokens) -> None:
        """Decode steps: one kernel updates the layer's lists, another attends to all that is in them."""
        assert step.decodes is not None
        if isinstance(worker.method, WorkerHosted):
            self._decode_hosted(worker, worker.method, step, layer, tokens)
            return
        queries, keys, values, logits, out = tokens
        tables, n = worker.tables, step.num_decodes
        lens, pages = tables.step_lens[:n], tables.step_pages[:n]
        decode_update(
            tables,
            worker.cache,
            layer,
            step.decodes,
            keys,
            values,
            lens,
            pages,
            verdicts=logits,
            window=worker.method.options.window,
            on_new=worker.method.options.decision_offset == 0,
            new_expiry=step.decode_expiry,
        )
        self._attend_lists(worker, step, queries, lens, pages, out, step.longest)

    def _attend_lists(
        self,
        worker: CudaCacheWorker,
        step: CudaStep,
        queries: Tensor,
        lens: Tensor,
        pages: Tensor,
        out: Tensor,
        longest: int,
    ) -> None:
        """Attend to all that is in the lists."""
        n, heads = lens.shape
        shape = (n, heads, self.num_heads // heads, self.head_size)
        arguments = (queries.view(shape), worker.cache, lens, pages, out.view(shape))
        if n * heads <= FEW_LISTS and worker.method.options.decode != "fa3":
            balanced_attention(*arguments, worker.tables.step_done, self.scale)
        elif worker.fa3:
            # A graph needs a fixed number. With very many sequences FA3 may take it for more than a bound.
            splits = 0 if not step.capturing else _GRAPH_SPLITS if n * heads <= _MAX_SPLIT_SEQUENCES else 1
            decode_fa3.decode_attention(*arguments, worker.tables.query_starts, self.scale, longest, splits)
        else:
            decode_attention(*arguments, self.scale, longest)

    def _decode_hosted(
        self, worker: CudaCacheWorker, method: WorkerHosted, step: CudaStep, layer: int, tokens: _LayerTokens
    ) -> None:
        """Decode steps of a method that names the places itself, and may look at scores or choose what is read."""
        assert step.decodes is not None
        method.scale = self.scale  # also where a prompt comes token by token
        queries, keys, values, _, out = tokens
        tables, n, heads = worker.tables, step.num_decodes, keys.shape[1]
        lens, pages = tables.step_lens[:n], tables.step_pages[:n]
        # A graph is recorded once for all lengths.
        width = method.capacity if step.capturing else method.widest
        if method.fused is not None:
            grouped = (n, heads, self.num_heads // heads, self.head_size)
            call = DecodeLayer(
                worker.cache,
                layer,
                step.decodes,
                queries.view(grouped),
                keys,
                values,
                lens,
                pages,
                out.view(grouped),
                self.scale,
                width,
            )
            method.fused.store(call)
            if not method.fused.attend(call):
                self._attend_lists(worker, step, queries, lens, pages, out, width)
            return
        places, selected = method.choose_places(layer, queries, keys, values, self.scale, width)
        decode_update(tables, worker.cache, layer, step.decodes, keys, values, lens, pages, targets=places)
        if selected is None and not method.needs_weights:
            self._attend_lists(worker, step, queries, lens, pages, out, width)
        else:
            shape = (n, heads, self.num_heads // heads, self.head_size)
            scores = None
            if method.needs_weights:
                scores = torch.full((*shape[:3], width), float("-inf"), dtype=torch.float32, device=queries.device)
            mask = None if selected is None else selected.contiguous()
            decode_attention(
                queries.view(shape),
                worker.cache,
                lens,
                pages,
                out.view(shape),
                self.scale,
                width,
                scores=scores,
                selected=mask,
            )
            if scores is not None:
                weights = torch.softmax(scores * math.log(2), dim=-1)
                # A row that pads the batch has no entries, and no weights.
                method.observe(layer, weights.nan_to_num_(0.0))
        if layer == tables.layers - 1:
            method.end()

    def _attend_chunks(self, worker: CudaCacheWorker, step: CudaStep, layer: int, tokens: _LayerTokens) -> None:
        """Chunks: a plan of what stays and where, attention, and the storing."""
        queries, keys, values, logits, out = tokens
        tables, cache, chunks, heads = worker.tables, worker.cache, step.chunks, keys.shape[1]
        assert chunks is not None
        if isinstance(worker.method, WorkerInterval):
            worker.method.record_chunks(layer, queries, self.scale)
        elif isinstance(worker.method, WorkerHosted):
            if step.chunk_ends is not None and step.slots is not None:
                last_queries = queries.index_select(0, step.chunk_ends)
                worker.method.keep_last_queries(layer, step.slots[step.num_decodes :], last_queries, self.scale)
            for slot, first, last, position in step.prompts:
                if first >= step.num_decodes:
                    worker.method.keep_queries(slot, layer, queries[first:last], position, self.scale)
        if step.sequences is not None:  # nothing expires, and what a chunk attends to has been stored
            append_chunks(tables, cache, layer, chunks, keys, values, step.launches)
            of_tokens = (queries, keys, values, out)
            table = tables.page_table[:, layer]
            log_sums = chunk_fa3.chunk_attention(step.sequences, cache, table, *of_tokens, self.scale)
            self._weigh_chunks(worker, step, layer, queries, log_sums)
            return
        expiry: Tensor | Verdicts
        if logits is not None:
            options = worker.method.options
            expiry = Verdicts(logits, options.window, options.decision_offset)
        else:
            if step.chunk_expiry is None:
                step.chunk_expiry = torch.full((heads, len(keys)), NEVER, dtype=torch.int32, device=keys.device)
            expiry = step.chunk_expiry
        plan = plan_chunks(tables, layer, chunks, expiry, step.plans, step.counts, step.launches)
        sums = None
        if isinstance(worker.method, WorkerHosted) and worker.method.received is not None:
            sums = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        # The order matters: what the chunk's queries read is overwritten by what the chunk stores.
        of_tokens = (queries, keys, values, out)
        attention = (tables, cache, layer, chunks, plan, *of_tokens, self.scale)
        chunk_attention(*attention, log_sums=sums, launches=step.launches)
        store_survivors(tables, cache, layer, chunks, plan, keys, values, step.launches)
        if sums is not None:
            base, group = step.starts[step.num_decodes], self.num_heads // heads
            self._weigh_chunks(worker, step, layer, queries, LogSums(sums[base:], self.num_heads, group, 1))

    def _weigh_chunks(
        self, worker: CudaCacheWorker, step: CudaStep, layer: int, queries: Tensor, log_sums: LogSums
    ) -> None:
        """Add up what keys of prompts receive from the chunks, for a method that asks; they are stored by now."""
        method = worker.method
        if isinstance(method, WorkerHosted) and method.received is not None and step.chunks is not None:
            base, longest = step.starts[step.num_decodes], step.longest
            arguments = (layer, step.chunks, queries, log_sums, base, longest, self.scale)
            method.received.add_chunks(worker.cache, *arguments)


class CudaRaggedBackend(RaggedBackendMixin, AttentionBackend):
    """Ragged attention on CUDA."""

    impl_class = CudaRaggedImpl
    builder_class = CudaRaggedBuilder

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
    def create_worker(vllm_config: Any, spec: Any, cache: Tensor) -> CudaCacheWorker:
        """The worker around the cache tensor that vLLM has allocated, (blocks, lists, N, 2 * width).

        Raises:
            EngineError: FlashAttention 3 was asked for and is not there, or cannot read the cache.
        """
        tables = StagedTables.for_engine(vllm_config, spec, len(cache), cache.device)
        decode = spec.options.decode
        dtype, is_quantised = vllm_config.model_config.dtype, spec.options.kv_dtype != AUTO
        if decode == "fa3" and is_quantised:
            # It takes one scale a sequence, and queries in fp8 too.
            raise EngineError(
                "additional_config.hyperscale.decode is 'fa3', which cannot read a cache whose entries have scales of "
                f"their own ({spec.options.kv_dtype}): leave it out"
            )
        has_fa3 = decode_fa3.available() and dtype != torch.float32
        if decode == "fa3" and not has_fa3:
            raise EngineError(
                "additional_config.hyperscale.decode is 'fa3', which needs Hopper and half precision: leave it out"
            )
        method = registry.create_for_worker(tables, spec, vllm_config)
        fa3 = has_fa3 and decode != "triton"
        pages = PagedCache.of(cache)
        return CudaCacheWorker(tables, method, pages, fa3 and not is_quantised, dtype, fa3_prompts=fa3)
