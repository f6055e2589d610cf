"""What a method sees of the entries that it prunes: keys, values and what lives, whatever the cache stores them in."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowEntries:
    """Entries of one layer of some chains, in slot order.

    Attributes:
        keys: (chains, kv_heads, slots, head_dim), after RoPE; stale where nothing lives.
        values: As keys.
        live: (chains, kv_heads, slots) bool.
    """

    keys: Tensor
    values: Tensor
    live: Tensor


Choice = Callable[[Tensor, Tensor, RowEntries], Tensor]
"""What of some layers of some chains stays: called with the number of a layer and of a chain for each row of the batch,
(batch,) int64 on the device, and their entries, (batch, kv_heads, slots, …), all of one capacity; returns (batch,
kv_heads, slots) bool."""
