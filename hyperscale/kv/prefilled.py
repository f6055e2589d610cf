"""The entries a prompt leaves behind after prefill, ready to be copied into any number of chains."""

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max
"""Expiry of an entry that is kept for good."""


@dataclass
class PrefilledPrompt:
    """A prefilled prompt: only what the query after it can still see.

    Attributes:
        length: P, number of prompt tokens.
        keys: Per layer (kv_heads, P, head_dim); the live entries of a head come first, in order of position.
        values: As keys.
        lens: (layers, kv_heads) int64, live entries of each head.
        expiry: (layers, kv_heads, P) int64, by position: first query position that no longer sees the key; None if
            none expires.
        positions: (layers, kv_heads, P) int64, position of the entry in each slot; None if slot s holds position s. The
            last dimension may end with the last live entry.
        scores: As positions, float32, what the method knows of the entry in each slot; None if nothing.
    """

    length: int
    keys: list[Tensor]
    values: list[Tensor]
    lens: Tensor
    expiry: Tensor | None = None
    positions: Tensor | None = None
    scores: Tensor | None = None


def live_first_order(live: Tensor) -> Tensor:
    """The order (..., slots) of live slots followed by dead ones, each part as before: index with it by gather."""
    # A stable sort of one bit: entries of a row stay in order of position, which rules that cut rows rely on.
    return torch.argsort((~live).to(torch.uint8), dim=-1, stable=True)


def compact(keys: Tensor, values: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Move one layer's live entries to the front.

    Args:
        keys: (kv_heads, P, head_dim).
        values: (kv_heads, P, head_dim).
        live: (kv_heads, P) bool, or None if all are.

    Returns:
        keys, values as before but reordered, the number of live entries (kv_heads,), and the order (kv_heads, P), or
        None if it is the old one.
    """
    heads, length, _ = keys.shape
    if live is None:
        return keys.contiguous(), values.contiguous(), torch.full((heads,), length, device=keys.device), None
    order = live_first_order(live)
    index = order[..., None].expand_as(keys)
    return keys.gather(1, index), values.gather(1, index), live.sum(1), order
