"""A chain of the batch set aside: all that is needed to go on with it later exactly where it was."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.prefilled import PrefilledPrompt


@dataclass(frozen=True)
class Snapshot:
    """One chain's rows of the cache and of every table that has one row a chain.

    Attributes:
        rows: The live entries as they are stored and in storage order, so that slots keep their numbers.
        tables: The chain's part of each per-chain tensor.
    """

    rows: PrefilledPrompt
    tables: tuple[Tensor, ...]

    @classmethod
    def take(cls, cache: RaggedCache, chain: int, tables: Sequence[Tensor]) -> "Snapshot":
        """Copy one chain; the cache and the tables stay as they are.

        Args:
            cache: The cache.
            chain: The chain's number in it.
            tables: Per-chain tensors, (any, max_chains, ...).
        """
        lens = cache.lens[:, chain].clone()  # (layers, kv_heads)
        longest = int(lens.max())
        keys, values = [], []
        for layer in range(cache.layers):
            # Keys at index 0 and values at 1, each row padded to the longest.
            shape = (2, cache.kv_heads, longest, cache.codec.width)
            entries = torch.zeros(shape, dtype=cache.codec.stored, device=cache.device)
            for head in range(cache.kv_heads):
                for index, vectors in enumerate(cache.stored_row(layer, chain, head)):
                    entries[index, head, : len(vectors)] = vectors
            keys.append(entries[0])
            values.append(entries[1])
        rows = PrefilledPrompt(longest, keys, values, lens)
        return cls(rows, tuple(table[:, chain].clone() for table in tables))

    def restore(self, cache: RaggedCache, tables: Sequence[Tensor]) -> None:
        """Append the chain to the cache and to the same tables, which may have become wider in between.

        `RaggedCache.reindex` is left to the caller.
        """
        chain = cache.chains
        cache.admit(self.rows, self.rows.lens.cpu().numpy(), 1, encoded=True)
        # A wider table has room beyond the part that was copied; what it holds there is not in use.
        for table, part in zip(tables, self.tables, strict=True):
            table[:, chain][tuple(slice(size) for size in part.shape)] = part
