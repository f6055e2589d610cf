"""Keeps track of the place of each cache row: host-side bookkeeping of one layer, without the cache's own tensors."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class RowIndex:
    """Slab and place of every row of one layer.

    Attributes:
        size: (rows,), slots of the slab in which the row lives; 0 for rows not in use.
        place: (rows,), its place in that slab.
    """

    def __init__(self, rows: int) -> None:
        self.size: Ints = np.zeros(rows, dtype=np.int64)
        self.place: Ints = np.zeros(rows, dtype=np.int64)

    def assign(self, rows: Ints, size: int, first: int) -> None:
        """Record that ``rows`` took consecutive places of a slab, from ``first`` on."""
        self.size[rows] = size
        self.place[rows] = np.arange(first, first + len(rows))

    def release(self, rows: Ints, size: int) -> tuple[Ints, Ints]:
        """Forget ``rows`` of one slab and plan how its other rows stay dense.

        Returns:
            holes, movers: the rows at places ``movers`` are to be copied to places ``holes``.
        """
        released = self.place[rows]
        self.size[rows] = 0
        staying = np.flatnonzero(self.size == size)
        # Places 0 … len(staying) - 1 will be in use: holes among them are filled with the rows beyond them.
        holes = np.sort(released[released < len(staying)])
        beyond = staying[self.place[staying] >= len(staying)]
        movers = self.place[beyond]
        self.place[beyond] = holes
        return holes, movers

    def renumber(self, dst: Ints, src: Ints) -> None:
        """Give the rows ``src`` the numbers ``dst``."""
        self.size[dst] = self.size[src]
        self.place[dst] = self.place[src]
        self.size[src] = 0

    def read_table(self, rows: int, sizes: list[int], counts: list[int]) -> Ints:
        """How the first ``rows`` rows map to the concatenation of all slabs.

        Args:
            rows: Number of rows in use.
            sizes: Slot counts of the slabs in use, ascending.
            counts: Rows of each.

        Returns:
            (4, rows): the row at each concatenated position; the position of each row; the first slot, within its
            slab's storage, of the row at each concatenated position; the slots of each row.
        """
        size, place = self.size[:rows], self.place[:rows]
        first_position = np.zeros(len(sizes), dtype=np.int64)  # of each slab, in the concatenation
        np.cumsum(counts[:-1], out=first_position[1:])
        position = first_position[np.searchsorted(np.asarray(sizes), size)] + place
        table = np.empty((4, rows), dtype=np.int64)
        table[0, position] = np.arange(rows)
        table[1] = position
        table[2, position] = place * size
        table[3] = size
        return table
