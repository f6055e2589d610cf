"""Where each cache row lives: host-side bookkeeping of one layer, without tensors of the cache itself."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Places:
    """Size class and place of every row of one layer.

    Attributes:
        size: (rows,), slots of the slab in which the row lives.
        place: (rows,), its place in that slab.
    """

    def __init__(self, rows: int) -> None:
        self.size: Ints = np.zeros(rows, dtype=np.int64)
        self.place: Ints = np.zeros(rows, dtype=np.int64)

    def put(self, rows: Ints, size: int, first: int) -> None:
        """Record that ``rows`` took consecutive places from ``first`` on."""
        self.size[rows] = size
        self.place[rows] = np.arange(first, first + len(rows))

    def vacate(self, rows: Ints, size: int) -> tuple[Ints, Ints]:
        """Forget ``rows`` of one slab and plan how the rest stays dense.

        Returns:
            holes, movers: the rows at places ``movers`` are to be copied to places ``holes``.
        """
        gone = self.place[rows]
        self.size[rows] = 0
        stayers = np.flatnonzero(self.size == size)
        remaining = len(stayers)
        holes = np.sort(gone[gone < remaining])
        late = stayers[self.place[stayers] >= remaining]
        movers = self.place[late]
        self.place[late] = holes
        return holes, movers

    def renumber(self, dst: Ints, src: Ints) -> None:
        """Give the rows ``src`` the numbers ``dst``."""
        self.size[dst] = self.size[src]
        self.place[dst] = self.place[src]
        self.size[src] = 0

    def index(self, rows: int, sizes: list[int], counts: list[int]) -> Ints:
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
        offsets = np.zeros(len(sizes), dtype=np.int64)
        np.cumsum(counts[:-1], out=offsets[1:])
        position = offsets[np.searchsorted(np.asarray(sizes), size)] + place
        table = np.empty((4, rows), dtype=np.int64)
        table[0, position] = np.arange(rows)
        table[1] = position
        table[2, position] = place * size
        table[3] = size
        return table
