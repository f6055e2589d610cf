"""The tables as a GPU's worker changes them: a step's news is collected and goes to the device in one copy.

Nothing here reads from the device, so nothing waits for it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperscale.engines.vllm.worker.tables import Lists


def upload(values: Sequence[int], device: torch.device) -> Tensor:
    """Integers as an int64 tensor on the device; the copy is under way, and later work on the stream sees it."""
    made = torch.tensor(values, dtype=torch.int64)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


class StagedLists(Lists):
    """Tables whose changes by `open`, `close` and `grant` take place at the next `flush`.

    Pages are given out by kernels, which never take them back: `allocate`, `shorten` and `compact` are not for these.

    Attributes:
        live: (slots, heads) int32, scratch of decode steps: entries of the lists of a layer.
        table: (slots, heads, pages) int32, likewise: their pages.
        ramp: (slots * heads,) int32: 0, 1, 2, …
    """

    def __init__(self, **shape: object) -> None:
        """Empty tables; see `Lists`."""
        super().__init__(**shape)  # type: ignore[arg-type]
        of = {"dtype": torch.int32, "device": self.expiry.device}
        slots, _, heads, pages = self.page_table.shape
        self.live = torch.zeros(slots, heads, **of)
        self.table = torch.zeros(slots, heads, pages, **of)
        self.ramp = torch.arange(slots * heads, **of)
        self._opened: dict[int, list[int]] = {}
        self._blocks: dict[int, int] = {}
        self._supply: dict[int, int] = {}
        self._supplied: dict[int, int] = {}

    def open(self, first_block: int, facts: Sequence[int]) -> int:
        """See `Lists.open`."""
        slot = self._free.pop()
        self._opened[slot] = list(facts)
        self._blocks[first_block] = slot
        self._supplied[slot] = 0
        return slot

    def close(self, slot: int) -> None:
        """See `Lists.close`."""
        self._free.append(slot)

    def grant(self, slot: int, kept: int, added: Sequence[int]) -> None:
        """See `Lists.grant`; that nothing in use is taken away shows when the step is reported."""
        width = self.supply.shape[1]
        for place, block in enumerate(added, kept):
            self._supply[slot * width + place] = block
        self._supplied[slot] = kept + len(added)

    def flush(self) -> None:
        """Bring what has changed to the device."""
        facts = [fact for row in self._opened.values() for fact in row]
        parts = [list(self._opened), facts]
        for changes in (self._blocks, self._supply, self._supplied):
            parts += [list(changes), list(changes.values())]
        if any(parts):
            sent = upload([value for part in parts for value in part], self.expiry.device)
            opened, rows, *pairs = torch.split(sent, [len(part) for part in parts])
            if self._opened:
                for table in (self.bump, self.capacity, self.lens, self.last):
                    table.index_fill_(0, opened, 0)
                self.facts[opened] = rows.view(-1, self.facts.shape[1])
            flat = (self.slot_of_block, self.supply.view(-1), self.supplied)
            for table, index, value in zip(flat, pairs[::2], pairs[1::2], strict=True):
                if len(index):
                    table[index] = value.to(torch.int32)
        for kept in (self._opened, self._blocks, self._supply, self._supplied):
            kept.clear()
