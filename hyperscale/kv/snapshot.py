"""A chain of the batch set aside: all that is needed to go on with it later exactly where it was."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.prefilled import Prompt


@dataclass(frozen=True)
class Snapshot:
    """One chain's rows of the cache and of every table that has one row a chain.

    Attributes:
        rows: The live entries as they are stored and in storage order, so that slots keep their numbers.
        tables: The chain's part of each per-chain tensor.
    """

    rows: Prompt
    tables: tuple[Tensor, ...]

    @classmethod
    def take(cls, cache: RaggedCache, chain: int, tables: Sequence[Tensor]) -> "Snapshot":
        """Copy one chain; the cache and the tables stay as they are.

        Args:
            cache: The cache.
            chain: The chain's number in it.
            tables: Per-chain tensors, (any, slots, ...).
        """
        lens = cache.lens[:, chain].clone()  # (layers, kv_heads)
        longest = int(lens.max())
        keys, values = [], []
        for layer in range(cache.layers):
            rows = [cache.kept(layer, chain, head) for head in range(cache.kv_heads)]
            size = (2, cache.kv_heads, longest, cache.codec.width)
            both = torch.zeros(size, dtype=cache.codec.stored, device=cache.device)
            for head, row in enumerate(rows):
                for kind, entries in enumerate(row):
                    both[kind, head, : len(entries)] = entries
            keys.append(both[0])
            values.append(both[1])
        return cls(Prompt(longest, keys, values, lens, None), tuple(table[:, chain].clone() for table in tables))

    def put(self, cache: RaggedCache, tables: Sequence[Tensor]) -> None:
        """Append the chain to the cache and to the same tables, which may have become wider in between.

        `RaggedCache.reindex` is left to the caller.
        """
        chain = cache.chains
        cache.admit(self.rows, self.rows.lens.cpu().numpy(), 1, kept=True)
        for table, part in zip(tables, self.tables, strict=True):
            table[:, chain][tuple(slice(size) for size in part.shape)] = part
