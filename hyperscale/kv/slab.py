"""Storage of cache rows that share one capacity."""

import torch
from torch import Tensor

_SMALLEST = 8  # rows a slab holds at least, once it holds any


def capacity(length: int) -> int:
    """Slots of a row that holds ``length`` entries and can take one more: 32, 64, 96, 128, 192, 256, 384 and so on.

    Beyond 64 the steps are at most 1.5-fold, so a row that has just moved up is at least two thirds full.
    """
    size = 32
    while size <= length:
        # From a power of two by half as much again, and from there to the next power of two.
        size = 64 if size == 32 else size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


class Slab:
    """Rows of equal capacity, dense: places 0 … count - 1 are in use.

    Being dense and always read over its full capacity, a slab is attended to by plain batched matrix products without
    gathering a key, and the arithmetic of one row cannot depend on which other rows there are.

    Attributes:
        size: Slots of a row.
        count: Rows in use.
        keys: (rows, size, width), as the codec stores them.
        values: As keys.
        bias: (rows, 1, size), added to attention scores: 0 where an entry lives, -inf elsewhere.
    """

    def __init__(self, size: int, width: int, stored: torch.dtype, *, dtype: torch.dtype, device: torch.device) -> None:
        self.size = size
        self.count = 0
        # Dead slots are read with weight 0, so they must be finite: zeros at first, stale entries later.
        self.keys = torch.zeros(0, size, width, dtype=stored, device=device)
        self.values = torch.zeros(0, size, width, dtype=stored, device=device)
        self.bias = torch.zeros(0, 1, size, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of storage, used or not."""
        return self.keys.nbytes + self.values.nbytes + self.bias.nbytes

    def extend(self, rows: int) -> slice:
        """Take ``rows`` empty places at the end, growing storage geometrically; returns the places."""
        places = slice(self.count, self.count + rows)
        if places.stop > len(self.keys):
            self._resize(max(places.stop, len(self.keys) * 3 // 2, _SMALLEST))
        self.count = places.stop
        self.bias[places] = float("-inf")
        return places

    def drop(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Copy rows at ``movers`` into ``holes``, then give back the last ``rows`` places; shrinks storage.

        Args:
            holes: (any,) int64, places to fill.
            movers: As holes: places beyond the rows that stay.
            rows: Number of places to give back.
        """
        if len(holes):
            for tensor in (self.keys, self.values, self.bias):
                tensor[holes] = tensor[movers]
        self.count -= rows
        # Storage shrinks only when it is at most a quarter full, so that a row that comes and goes resizes nothing.
        if self.count * 4 <= len(self.keys):
            self._resize(max(self.count * 2, _SMALLEST) if self.count else 0)

    def _resize(self, rows: int) -> None:
        if rows == len(self.keys):
            return
        count = min(self.count, rows)
        for name in ("keys", "values", "bias"):
            old: Tensor = getattr(self, name)
            new = old.new_empty(rows, *old.shape[1:])
            new[:count] = old[:count]
            new[count:].zero_()
            setattr(self, name, new)
