"""What methods with states ask of a worker's lists: to read whole lists, to move entries, to give up pages."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

PASS_BYTES = 64 << 20
"""Keys that are copied at once where lists are evicted from; scores take a few times as much again."""


class Rows(Protocol):
    """The entries of a worker's lists, by place."""

    def read_keys(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """Keys of the first ``count`` places, (requests, layers, heads, count, head_dim); 0 behind a list's end.

        Args:
            slots: (requests,) int64.
            layers: The layers, without a step.
            count: Places.
        """

    def read_values(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """Values, as `read_keys`."""

    def move(self, slots: Tensor, layers: slice, source: Tensor, counts: Tensor) -> None:
        """Bring entries to the first places of their lists; lengths stay as they are.

        Args:
            slots: (requests,) int64, all different.
            layers: The layers, without a step.
            source: (requests, layers, heads, places) int64, the place from which each place gets its entry.
            counts: (requests,) int64, places of each request that get one; the others in ``source`` name any place.
        """

    def shrink(self, kept: Sequence[tuple[int, int]]) -> None:
        """Give up the pages that requests' lists do not need: slots, and entries that each of their lists keeps."""
