"""The CPU backend: vLLM's own paged attention kernel with every (request, KV head) as a sequence of its own."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from vllm import _custom_ops as ops
from vllm.v1.attention.backend import AttentionMetadataBuilder
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from hyperscale.engines.vllm.backends.base import RaggedBackendMixin, RaggedImpl
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
from hyperscale.engines.vllm.worker.cpu import CpuCacheWorker, CpuStep
from hyperscale.engines.vllm.worker.methods import registry
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk
from hyperscale.engines.vllm.worker.methods.dmc import WorkerDMC
from hyperscale.engines.vllm.worker.quantised_pages import QuantisedPages
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.kv.formats import AUTO

_ISA = "vec"  # the one layout that `CpuPages.read` knows: keys of a page transposed, values as they are


class CpuPages:
    """The cache tensor as pages: (pages, 2 N, head_dim), keys in the first half of a page and values in the second."""

    def __init__(self, cache: Tensor) -> None:
        """Wrap the tensor that vLLM has allocated, (blocks, lists, N, 2 * head_dim)."""
        blocks, num_lists, self._tokens, double = cache.shape
        self._dim = double // 2
        self._pages = cache.view(blocks * num_lists, 1, 2 * self._tokens, self._dim)
        self._keys, self._values = self._pages.chunk(2, dim=2)

    def write(self, entries: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Pages.write`."""
        # The kernel wants (tokens, KV heads, head_dim); a page has one KV head.
        new_entries = (keys[:, None].contiguous(), values[:, None].contiguous())
        ops.cpu_attn_reshape_and_cache(*new_entries, self._keys, self._values, entries, _ISA)

    def move(self, source: Tensor, target: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Pages.move`."""
        self.write(target, keys, values)

    def read(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pages.read`."""
        halves = self._pages[pages, 0]  # (n, 2 N, head_dim)
        keys = halves[:, : self._tokens].reshape(len(pages), self._dim, self._tokens).transpose(1, 2)
        return keys, halves[:, self._tokens :]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Pages.copy`."""
        self._pages[target] = self._pages[source]

    def attend(self, queries: Tensor, lens: Tensor, table: Tensor, scale: float) -> Tensor:
        """See `Pages.attend`."""
        count, group, _ = queries.shape
        starts = torch.arange(count + 1, dtype=torch.int32)
        metadata = ops.cpu_attn_get_scheduler_metadata(
            num_reqs=count,
            num_heads=group,
            num_kv_heads=1,
            head_dim=self._dim,
            seq_lens=lens,
            dtype=queries.dtype,
            query_start_loc=starts,
            causal=True,
            sliding_window_size=-1,
            isa=_ISA,
            enable_kv_split=False,
        )
        out = torch.empty_like(queries)
        ops.cpu_attention_with_kv_cache(
            query=queries.contiguous(),
            key_cache=self._keys,
            value_cache=self._values,
            output=out,
            query_start_loc=starts,
            seq_lens=lens,
            scale=scale,
            causal=True,
            alibi_slopes=None,
            sliding_window=-1,
            block_table=table,
            softcap=0.0,
            scheduler_metadata=metadata,
            s_aux=None,
        )
        return out


class CpuRaggedBuilder(AttentionMetadataBuilder[CpuStep]):
    """Describes a step to the attention layers."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> CpuStep:
        """See vLLM's base class."""
        common = common_attn_metadata
        n = common.num_reqs
        return CpuStep(
            first_blocks=common.block_table_tensor[:n, 0],
            starts=common.query_start_loc_cpu[: n + 1].tolist(),
            computed_tokens=common.seq_lens[:n].tolist(),
        )


class CpuRaggedImpl(RaggedImpl):
    """Attention by `ReferenceAttention`, the mechanism in plain torch."""

    def attend(
        self,
        step: CpuStep,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        logits: Tensor | None,
        out: Tensor,
    ) -> None:
        """See `RaggedImpl.attend`."""
        worker = CacheWorker.current
        assert isinstance(worker, CpuCacheWorker), "the cache is set up before the first step"
        step = worker.resolve_slots(step)
        attention, heads, scale = worker.attention, keys.shape[1], self.scale
        verdicts = None if logits is None else logits > 0
        grouped_queries = queries.view(len(queries), heads, -1, queries.shape[-1])  # by KV head
        grouped_out = out.view(grouped_queries.shape)
        sizes = [b - a for a, b in pairwise(step.starts)]

        # Requests with one token attend together, also where that token ends a prompt.
        single = [index for index, size in enumerate(sizes) if size == 1]
        if single:
            tokens = torch.tensor([step.starts[index] for index in single])
            slots = torch.tensor([step.slots[index] for index in single])
            positions = torch.tensor([step.computed_tokens[index] - 1 for index in single])
            lens = attention.tables.lens[slots, layer].long()
            batch = DecodeBatch(layer, slots, positions, lens, None if verdicts is None else verdicts[tokens])
            grouped_out[tokens] = attention.decode(batch, grouped_queries[tokens], keys[tokens], values[tokens], scale)
            step.query_reads[tokens] += attention.tables.lens[slots, layer].sum(-1)

        # Chunks of prompts, one request at a time.
        for index, size in enumerate(sizes):
            if size > 1:
                part = slice(step.starts[index], step.starts[index + 1])
                stop = step.computed_tokens[index]
                chunk_verdicts = None if verdicts is None else verdicts[part]
                chunk = RequestChunk(layer, step.slots[index], stop - size, stop, chunk_verdicts)
                grouped_out[part], reads = attention.attend_chunk(
                    chunk, grouped_queries[part], keys[part], values[part], scale
                )
                step.query_reads[part] += reads

    def merge(
        self,
        step: CpuStep,
        layer: int,
        positions: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        logits: Tensor,
    ) -> None:
        """See `RaggedImpl.merge`."""
        worker = CacheWorker.current
        assert isinstance(worker, CpuCacheWorker), "the cache is set up before the first step"
        step, method = worker.resolve_slots(step), worker.method
        assert isinstance(method, WorkerDMC), "only dmc merges"
        count = step.starts[-1]
        longest = max(b - a for a, b in pairwise(step.starts))
        offsets, slots = torch.tensor(step.starts), torch.tensor(step.slots)
        tokens = (part[:count] for part in (positions, queries, keys, values, logits))
        method.merge(layer, slots, offsets, longest, *tokens)


class CpuRaggedBackend(RaggedBackendMixin, CPUAttentionBackend):
    """Ragged attention on the CPU."""

    impl_class = CpuRaggedImpl
    builder_class = CpuRaggedBuilder

    @staticmethod
    def create_worker(vllm_config: Any, spec: Any, cache: Tensor) -> CpuCacheWorker:
        """The worker around the cache tensor that vLLM has allocated, (blocks, lists, N, 2 * width)."""
        tables = EntryTables.for_engine(vllm_config, spec, len(cache), cache.device)
        method = registry.create_for_worker(tables, spec, vllm_config)
        model, kv_dtype = vllm_config.model_config, spec.options.kv_dtype
        pages = (
            CpuPages(cache) if kv_dtype == AUTO else QuantisedPages(cache, kv_dtype, model.get_head_size(), model.dtype)
        )
        return CpuCacheWorker(ReferenceAttention(tables, method, pages))
