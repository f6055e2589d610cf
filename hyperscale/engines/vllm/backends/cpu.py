"""The CPU backend: vLLM's own paged attention kernel with every (request, KV head) as a sequence of its own."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm import _custom_ops as ops
from vllm.v1.attention.backend import AttentionMetadataBuilder
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from hyperscale.engines.vllm.backends.base import RaggedImpl
from hyperscale.engines.vllm.worker.reference_attention import Ragged
from hyperscale.engines.vllm.worker.rule import Rows, Span
from hyperscale.engines.vllm.worker.rules import rule_of
from hyperscale.engines.vllm.worker.slots import Slots, Step, Worker, tables
from hyperscale.engines.vllm.worker.tables import Lists

_ISA = "vec"  # the one layout that `CpuPages.read` knows: keys of a page transposed, values as they are


class CpuPages:
    """The cache tensor as pages: (pages, 2 N, head_dim), keys in the first half of a page and values in the second."""

    def __init__(self, cache: Tensor) -> None:
        """Wrap the tensor that vLLM has allocated, (blocks, lists, N, 2 * head_dim)."""
        blocks, size, self._tokens, double = cache.shape
        self._dim = double // 2
        self._pages = cache.view(blocks * size, 1, 2 * self._tokens, self._dim)
        self._keys, self._values = self._pages.chunk(2, dim=2)

    def write(self, entries: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Pages.write`."""
        both = (keys[:, None].contiguous(), values[:, None].contiguous())
        ops.cpu_attn_reshape_and_cache(*both, self._keys, self._values, entries, _ISA)

    def read(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pages.read`."""
        found = self._pages[pages, 0]
        keys = found[:, : self._tokens].reshape(len(pages), self._dim, self._tokens).transpose(1, 2)
        return keys, found[:, self._tokens :]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Pages.copy`."""
        self._pages[target] = self._pages[source]

    def attend(self, queries: Tensor, lens: Tensor, table: Tensor, scale: float) -> Tensor:
        """See `Pages.attend`."""
        count, group, _ = queries.shape
        starts = torch.arange(count + 1, dtype=torch.int32)
        plan = ops.cpu_attn_get_scheduler_metadata(
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
            scheduler_metadata=plan,
            s_aux=None,
        )
        return out


class CpuRaggedBuilder(AttentionMetadataBuilder[Step]):
    """Describes a step to the attention layers."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Step:
        """See vLLM's base class."""
        common = common_attn_metadata
        n = common.num_reqs
        return Step(
            first_blocks=common.block_table_tensor[:n, 0],
            starts=common.query_start_loc_cpu[: n + 1].tolist(),
            covered=common.seq_lens[:n].tolist(),
        )


class CpuRaggedImpl(RaggedImpl):
    """Attention by `Ragged`, the mechanism in plain torch."""

    def attend(
        self, step: Step, layer: int, queries: Tensor, keys: Tensor, values: Tensor, logits: Tensor | None, out: Tensor
    ) -> None:
        """See `RaggedImpl.attend`."""
        worker = Slots.current
        assert isinstance(worker, Worker), "the cache is set up before the first step"
        step = worker.resolve(step)
        ragged, heads, scale = worker.ragged, keys.shape[1], self.scale
        verdicts = None if logits is None else logits > 0
        grouped = queries.view(len(queries), heads, -1, queries.shape[-1])
        result = out.view(grouped.shape)
        sizes = [b - a for a, b in zip(step.starts, step.starts[1:], strict=False)]
        single = [index for index, size in enumerate(sizes) if size == 1]
        if single:
            at = torch.tensor([step.starts[index] for index in single])
            slots = torch.tensor([step.slots[index] for index in single])
            positions = torch.tensor([step.covered[index] - 1 for index in single])
            lens = ragged.lists.lens[slots, layer].long()
            rows = Rows(layer, slots, positions, lens, None if verdicts is None else verdicts[at])
            result[at] = ragged.decode(rows, grouped[at], keys[at], values[at], scale)
        for index, size in enumerate(sizes):
            if size > 1:
                part = slice(step.starts[index], step.starts[index + 1])
                covered = step.covered[index]
                chosen = None if verdicts is None else verdicts[part]
                span = Span(layer, step.slots[index], covered - size, covered, chosen)
                result[part], seen = ragged.chunk(span, grouped[part], keys[part], values[part], scale)
                step.seen[part] += seen


class CpuRaggedBackend(CPUAttentionBackend):
    """Ragged attention on the CPU."""

    forward_includes_kv_cache_update: ClassVar[bool] = True

    @staticmethod
    def get_name() -> str:
        """The place in vLLM's registry that is open to plugins."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> Any:
        """The class that attends."""
        return CpuRaggedImpl

    @staticmethod
    def get_builder_cls() -> Any:
        """The class that describes a step."""
        return CpuRaggedBuilder

    @staticmethod
    def worker(vllm_config: Any, spec: Any, cache: Tensor) -> Worker:
        """The worker around the cache tensor that vLLM has allocated, (blocks, lists, N, 2 * head_dim)."""
        lists = tables(vllm_config, spec, Lists, len(cache), cache.device)
        return Worker(Ragged(lists, rule_of(lists, spec), CpuPages(cache)))
