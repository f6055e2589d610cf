"""Attention of static decode steps over a `RaggedCache`, by kernels that follow the addresses of its rows."""

from typing import Any

import torch
from torch import Tensor

from hyperscale.engines.torch import row_kernels
from hyperscale.engines.torch.row_kernels import explain_unsupported as explain_unsupported
from hyperscale.kv.cache import RaggedCache


class RowAttention:
    """Attends by Triton's kernels, whose launches depend on nothing but the padded numbers of chains and slots."""

    def __init__(self, cache: RaggedCache) -> None:
        self._cache, self._addresses = cache, cache.follow_addresses(alone=True)
        self._chains = self._width = 0

    @staticmethod
    def try_kernels(dtype: torch.dtype, config: Any, head_dim: int, device: torch.device) -> None:
        """Compile and run the kernels once.

        Raises:
            Exception: Whatever keeps them from it.
        """
        group = config.num_attention_heads // config.num_key_value_heads
        queries = torch.zeros(1, group, head_dim, dtype=dtype, device=device)
        lens = torch.zeros(1, dtype=torch.int64, device=device)
        addresses = lens.new_zeros(3, 1)
        row_kernels.write(queries[:, 0].contiguous(), queries[:, 0].contiguous(), lens.clone(), lens, addresses)
        row_kernels.attend(queries, lens, addresses, 1.0, width=32, with_weights=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def begin(self, chains: int, width: int) -> None:
        """See `forward_pass.DecodeAttention.begin`."""
        self._chains, self._width = chains, width

    def width(self, layer: int) -> int:
        """See `forward_pass.DecodeAttention.width`."""
        return self._width

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        scale: float,
        *,
        selected: Tensor | None = None,
        with_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `RaggedCache.attend`."""
        cache, rows = self._cache, self._chains * self._cache.kv_heads
        dim, addresses = cache.head_dim, self._addresses.of_layer(layer)
        lens = cache.lens[layer, : self._chains].view(rows)
        row_kernels.write(
            keys.reshape(rows, dim).contiguous(),
            values.reshape(rows, dim).contiguous(),
            slots.reshape(rows).contiguous(),
            lens,
            addresses,
        )
        by_row = queries.reshape(rows, -1, dim).contiguous()
        if selected is not None:
            selected = selected.reshape(*by_row.shape[:2], self._width).contiguous()
            place = torch.arange(self._width, device=lens.device)
            read = (selected.any(1) & (place < lens[:, None])).sum(-1)
            cache.read[layer, : self._chains] = read.view(self._chains, -1)
        out, weights = row_kernels.attend(
            by_row, lens, addresses, scale, width=self._width, selected=selected, with_weights=with_weights
        )
        if weights is not None:
            weights = weights.view(self._chains, cache.kv_heads, -1, self._width)
        return out.view(queries.shape), weights
