"""The entries a prompt leaves behind after prefill, ready to be copied into any number of chains."""

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max
"""Expiry of an entry that is kept for good."""


@dataclass
class Prompt:
    """A prefilled prompt: only what the query after it can still see.

    Attributes:
        length: P, number of prompt tokens.
        keys: Per layer (kv_heads, P, head_dim); the live entries of a head come first, in order of position.
        values: As keys.
        lens: (layers, kv_heads) int64, live entries of each head.
        expiry: (layers, kv_heads, P) int64, first query position that no longer sees the key; None if none expires.
    """

    length: int
    keys: list[Tensor]
    values: list[Tensor]
    lens: Tensor
    expiry: Tensor | None


def compact(keys: Tensor, values: Tensor, expiry: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Bring one layer's live entries to the front.

    Args:
        keys: (kv_heads, P, head_dim).
        values: (kv_heads, P, head_dim).
        expiry: (kv_heads, P) or None.

    Returns:
        keys, values as before but reordered, and the number of live entries (kv_heads,).
    """
    heads, length, _ = keys.shape
    if expiry is None:
        return keys.contiguous(), values.contiguous(), torch.full((heads,), length, device=keys.device)
    live = expiry > length
    order = torch.argsort((~live).to(torch.uint8), dim=1, stable=True)[..., None].expand_as(keys)
    return keys.gather(1, order), values.gather(1, order), live.sum(1)
