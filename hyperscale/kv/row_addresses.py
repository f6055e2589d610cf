"""Where the rows of a cache lie in memory, in a table on the device that kernels read while they run."""

import numpy as np
import torch
from torch import Tensor

from hyperscale.kv.row_index import RowIndex
from hyperscale.kv.slab import Slab

_KEYS, _VALUES, _BIAS, _SLOTS = range(4)


class RowAddresses:
    """A table that never moves itself, so that a CUDA graph may hold it while rows grow, move and leave.

    Attributes:
        table: (4, layers, rows) int64 on the device: addresses of each row's first key, value and bias, and its slots;
            all 0 where there is no row.
    """

    def __init__(self, layers: int, rows: int, device: torch.device) -> None:
        self.table = torch.zeros(4, layers, rows, dtype=torch.int64, device=device)
        pinned = device.type == "cuda"  # so that the copy to the device does not wait
        self._host = torch.zeros(self.table.shape, dtype=torch.int64, pin_memory=pinned)
        self._array = self._host.numpy()

    def note(self, layer: int, index: RowIndex, slabs: dict[int, Slab]) -> None:
        """Take over where the rows of a layer lie now; `upload` brings it to the device."""
        array = self._array[:, layer]
        array[:] = 0
        for size, slab in slabs.items():
            rows = np.flatnonzero(index.size == size) if slab.count else ()
            if len(rows):
                place = index.place[rows]
                for kind, stored in ((_KEYS, slab.keys), (_VALUES, slab.values), (_BIAS, slab.bias)):
                    array[kind, rows] = stored.data_ptr() + place * (stored.stride(0) * stored.element_size())
                array[_SLOTS, rows] = size

    def upload(self) -> None:
        """Bring what was noted to the device, in the order of the work on it."""
        # The host does not write the table again before the step that reads it has ended, for which it waits.
        self.table.copy_(self._host, non_blocking=True)

    def of_layer(self, layer: int) -> Tensor:
        """(3, rows) int64: addresses of keys, values and biases."""
        return self.table[:_SLOTS, layer]

    @property
    def slots(self) -> Tensor:
        """(layers, rows) int64: slots of each row."""
        return self.table[_SLOTS]
