"""Tables for a GPU's worker: the changes of a step are collected on the host and go to the device in one copy.

Nothing here reads from the device, so nothing waits for it.
"""

from collections.abc import Sequence

import torch

from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.utils.device_copy import upload


class StagedTables(EntryTables):
    """Tables whose changes by `open_slot`, `close_slot` and `set_superblocks` take place at the next `flush`.

    Pages are given out by kernels, which never take them back: `append_pages`, `recycle_empty_pages` and `compact` are
    not for these.

    Attributes:
        step_lens: (slots, heads) int32, scratch of decode steps: entries of the lists of a layer.
        step_pages: (slots, heads, pages) int32, likewise: their pages.
        query_starts: (slots * heads,) int32: 0, 1, 2, …, where each sequence's only query begins, as FlashAttention
            wants it.
        step_done: (slots, heads) int32, zeros between two layers: see `balanced_attention`.
    """

    def __init__(self, **shape: object) -> None:
        """Empty tables; see `EntryTables`."""
        super().__init__(**shape)  # type: ignore[arg-type]
        int32 = {"dtype": torch.int32, "device": self.expiry.device}
        slots, _, heads, pages = self.page_table.shape
        self._max_superblocks = self.superblocks.shape[1]
        # Made once: under a CUDA graph every step has to find them at the same address.
        self.step_lens = torch.zeros(slots, heads, **int32)
        self.step_pages = torch.zeros(slots, heads, pages, **int32)
        self.query_starts = torch.arange(slots * heads, **int32)
        self.step_done = torch.zeros(slots, heads, **int32)
        self._launches = StepLaunches()
        # Changes since the last flush: slot to request parameters, first block to slot, flat index to superblock,
        # slot to number of superblocks. Of two changes in one place the later one counts.
        self._new_params: dict[int, list[int]] = {}
        self._new_slots: dict[int, int] = {}
        self._new_superblocks: dict[int, int] = {}
        self._new_counts: dict[int, int] = {}

    def open_slot(self, first_block: int, request_params: Sequence[int]) -> int:
        """See `EntryTables.open_slot`."""
        slot = self._free_slots.pop()
        self._new_params[slot] = list(request_params)
        self._new_slots[first_block] = slot
        self._new_counts[slot] = 0
        return slot

    def close_slot(self, slot: int) -> None:
        """See `EntryTables.close_slot`."""
        self._free_slots.append(slot)

    def set_superblocks(self, slot: int, num_kept: int, new_blocks: Sequence[int]) -> None:
        """See `EntryTables.set_superblocks`; that nothing in use is taken away is checked when the step is reported."""
        first, count = slot * self._max_superblocks, num_kept + len(new_blocks)
        self._new_superblocks.update(zip(range(first + num_kept, first + count), new_blocks, strict=True))
        self._new_counts[slot] = count

    def flush(self) -> None:
        """Bring what has changed to the device: one copy of all numbers in a row, and one launch that assigns them."""
        changes = (self._new_slots, self._new_superblocks, self._new_counts)
        if any(changes):  # a slot that was opened has a new count
            self._apply()
            self._new_params.clear()
            for changed in changes:
                changed.clear()

    def compile(self) -> None:
        """Compile the kernel before there are requests; nothing changes."""
        self._apply()

    def _apply(self) -> None:
        from hyperscale.engines.vllm.kernels.table_changes import change_tables

        numbers = list(self._new_params)
        for params in self._new_params.values():
            numbers += params
        changes = (self._new_slots, self._new_superblocks, self._new_counts)
        for changed in changes:
            numbers += changed
            numbers += changed.values()
        # A reopened slot is emptied on the device, in the order of the stream: its former request's steps are done.
        staged = upload(numbers or [0], self.expiry.device)
        change_tables(self, staged, len(self._new_params), [len(changed) for changed in changes], self._launches)
