"""One layer of a prompt that has just been prefilled, as a method may look at it: queries, keys, attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 256  # queries whose weights are in memory at once, at least
_WEIGHTS = 2**25  # weights in memory at once, where that is more than a block's


@dataclass(frozen=True)
class PrefillView:
    """One layer of a prompt, prefilled with full causal attention; or several, of which all tensors have a row each.

    Attributes:
        queries: (…, query_heads, P, head_dim), after RoPE; or the last of them, if the method looks at no others.
        keys: (…, kv_heads, P, head_dim), after RoPE.
        values: (…, kv_heads, P, head_dim).
        scale: Factor on the scores.
        L: The most new tokens of the chains that start from this prompt; of no meaning for length-invariant methods.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    L: int

    @property
    def length(self) -> int:
        """P."""
        return self.keys.shape[-2]

    def row(self, index: int) -> "PrefillView":
        """One of several layers."""
        return PrefillView(self.queries[index], self.keys[index], self.values[index], self.scale, self.L)

    def weights(self, first: int, last: int | None = None) -> Tensor:
        """Attention weights of the queries ``first`` … ``last - 1`` (to the end by default).

        Returns:
            (…, kv_heads, group, queries, P) float32; 0 where a key is younger than the query.
        """
        length = self.length
        stop = length if last is None else last
        missing = length - self.queries.shape[-2]
        assert first >= missing, "a query is looked at that the method has not asked for"
        # Queries by the KV head that they share: (…, kv_heads, group, queries, head_dim).
        by_head = self.queries.view(*self.keys.shape[:-2], -1, *self.queries.shape[-2:])
        by_head = by_head[..., first - missing : stop - missing, :]
        scores = by_head @ self.keys.unsqueeze(-3).transpose(-1, -2) * self.scale
        position = torch.arange(length, device=scores.device)
        future = position > position[first:stop, None]
        return torch.softmax(scores.masked_fill_(future, float("-inf")), dim=-1, dtype=torch.float32)

    def received(self) -> Tensor:
        """Attention that each key received, (…, kv_heads, P): of all queries of the prompt, and of the group."""
        if self.keys.ndim > 3:  # a layer at a time, for the same reason as below
            return torch.stack([self.row(index).received() for index in range(len(self.keys))])
        # In blocks of queries, because the weights of all of them would take P² numbers a head.
        total = torch.zeros(self.keys.shape[:-1], dtype=torch.float32, device=self.keys.device)
        block = max(_BLOCK, _WEIGHTS // (self.queries.shape[-3] * self.length))
        for start in range(0, self.length, block):
            total += self.weights(start, min(start + block, self.length)).sum((-3, -2))
        return total


def top_entries(scores: Tensor, count: int, *, newest: int = 0) -> Tensor:
    """The ``count`` entries of a prompt with the highest scores, among them those that stay in any case.

    Args:
        scores: (..., P) by position; among equals the earlier entry is taken.
        count: Number of entries, at most P.
        newest: How many of the last stay in any case.

    Returns:
        (..., P) bool.
    """
    length = scores.shape[-1]
    position = torch.arange(length, device=scores.device)
    order = scores.masked_fill(position >= length - newest, float("inf")).argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :count], True)
