"""Tables for a GPU's worker: the changes of a step are collected on the host and go to the device in one copy.

Nothing here reads from the device, so nothing waits for it.
"""

from collections.abc import Sequence

import torch

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
        # Made once: under a CUDA graph every step has to find them at the same address.
        self.step_lens = torch.zeros(slots, heads, **int32)
        self.step_pages = torch.zeros(slots, heads, pages, **int32)
        self.query_starts = torch.arange(slots * heads, **int32)
        self.step_done = torch.zeros(slots, heads, **int32)
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
        width = self.superblocks.shape[1]
        for place, block in enumerate(new_blocks, num_kept):
            self._new_superblocks[slot * width + place] = block
        self._new_counts[slot] = num_kept + len(new_blocks)

    def flush(self) -> None:
        """Bring what has changed to the device: one copy of all numbers in a row, then an assignment a table."""
        params = [number for row in self._new_params.values() for number in row]
        parts = [list(self._new_params), params]
        for changes in (self._new_slots, self._new_superblocks, self._new_counts):
            parts += [list(changes), list(changes.values())]
        if any(parts):
            numbers = upload([value for part in parts for value in part], self.expiry.device)
            opened_slots, rows, *pairs = torch.split(numbers, [len(part) for part in parts])
            # A reopened slot is emptied on the device, in the order of the stream: its former request's steps are done.
            if self._new_params:
                for table in (self.pages_used, self.num_pages, self.lens, self.newest):
                    table.index_fill_(0, opened_slots, 0)
                self.request_params[opened_slots] = rows.view(-1, self.request_params.shape[1])
            tables = (self.slot_of_block, self.superblocks.view(-1), self.num_superblocks)
            for table, index, value in zip(tables, pairs[::2], pairs[1::2], strict=True):
                if len(index):
                    table[index] = value.to(torch.int32)
        self._new_params.clear()
        for changes in (self._new_slots, self._new_superblocks, self._new_counts):
            changes.clear()
