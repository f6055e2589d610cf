"""The CPU backend: vLLM's own paged attention kernel with every (request, KV head) as a sequence of its own."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm import _custom_ops as ops
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from hyperscale.engines.vllm.backend import RaggedBuilder, RaggedImpl

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
        return RaggedImpl

    @staticmethod
    def get_builder_cls() -> Any:
        """The class that describes a step."""
        return RaggedBuilder
