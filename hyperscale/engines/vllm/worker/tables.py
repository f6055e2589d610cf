"""The worker's tables: which pages each list has, how many entries, and when each entry expires.

All tables are tensors on the cache's device, one row a slot, so that kernels can work on them; a slot is a place for
one running request. Slot 0 is a dummy: vLLM's null block 0 maps to it, and nothing of it is ever read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import NEVER, ceil_div

"""Expiry of an entry that is kept for good."""


class Lists:
    """Tables of one worker.

    A page is named by its number in the cache: block * lists + place. A request's *virtual* page v is place v % lists
    of its superblock number v // lists, and ``bump`` counts the virtual pages in use, so what a request uses is always
    the beginning of what it holds.

    Attributes:
        layers: Attention layers.
        heads: KV heads of a layer on this worker.
        page_tokens: N.
        slot_of_block: (blocks,) int32, the slot of the request whose first superblock this is; else stale or 0.
        supply: (slots, superblocks) int32, the ids of each slot's superblocks.
        supplied: (slots,) int32, how many there are.
        bump: (slots,) int32, virtual pages in use.
        page_table: (slots, layers, heads, pages) int32, the pages of each list in order.
        capacity: (slots, layers, heads) int32, pages of each list.
        lens: (slots, layers, heads) int32, entries of each list; entry j lies in page j // N at place j % N.
        last: (slots, layers, heads) int32, where in the list the newest token's entry is.
        expiry: (pages of the cache, N) int32, the first query position that no longer sees the entry.
        facts: (slots, 3) int64, prompt tokens, most new tokens, noise key.
    """

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        page_tokens: int,
        blocks: int,
        slots: int,
        max_tokens: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Empty tables.

        Args:
            layers: Attention layers.
            heads: KV heads of a layer on this worker.
            page_tokens: N.
            blocks: Superblocks of the cache, the null block included.
            slots: Most requests at once.
            max_tokens: Most tokens of a request.
            device: Where the cache is.
        """
        self.layers, self.heads, self.page_tokens = layers, heads, page_tokens
        self.size = layers * heads
        most = ceil_div(max_tokens, page_tokens) + 1  # a full list may have its next page already
        of = {"dtype": torch.int32, "device": device}
        self.slot_of_block = torch.zeros(blocks, **of)  # type: ignore[call-overload]
        # The head start of a step comes on top of the worst case.
        self.supply = torch.zeros(slots + 1, most + 2, **of)  # type: ignore[call-overload]
        self.supplied = torch.zeros(slots + 1, **of)  # type: ignore[call-overload]
        self.bump = torch.zeros(slots + 1, **of)  # type: ignore[call-overload]
        self.page_table = torch.zeros(slots + 1, layers, heads, most, **of)  # type: ignore[call-overload]
        self.capacity = torch.zeros(slots + 1, layers, heads, **of)  # type: ignore[call-overload]
        self.lens = torch.zeros_like(self.capacity)
        self.last = torch.zeros_like(self.capacity)
        self.expiry = torch.full((blocks * self.size, page_tokens), NEVER, **of)  # type: ignore[call-overload]
        self.facts = torch.zeros(slots + 1, 3, dtype=torch.int64, device=device)
        self._free = list(range(slots, 0, -1))
        self._recycled: dict[int, list[int]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all tables: memory that the cache needs besides itself."""
        return sum(table.nbytes for table in vars(self).values() if isinstance(table, Tensor))

    # -- requests ---------------------------------------------------------------------------------------------------

    def open(self, first_block: int, facts: Sequence[int]) -> int:
        """Give a request a slot, empty; returns it."""
        slot = self._free.pop()
        for table in (self.supplied, self.bump, self.capacity, self.lens, self.last):
            table[slot] = 0
        self.facts[slot] = torch.tensor(facts)
        self.slot_of_block[first_block] = slot
        self._recycled[slot] = []
        return slot

    def close(self, slot: int) -> None:
        """Take the slot back; its superblocks are no longer its own."""
        self._recycled.pop(slot)
        self.supplied[slot] = 0
        self._free.append(slot)

    def grant(self, slot: int, kept: int, added: Sequence[int]) -> None:
        """Change a slot's superblocks to the first ``kept`` that it has and those ``added``."""
        assert self.bump[slot] <= kept * self.size, "superblocks in use were taken away"
        count = kept + len(added)
        self.supply[slot, kept:count] = torch.tensor(added, dtype=torch.int32)
        self.supplied[slot] = count

    # -- pages ------------------------------------------------------------------------------------------------------

    def allocate(self, slots: Tensor, layer: int, wanted: Tensor) -> None:
        """Append pages to lists of one layer.

        Args:
            slots: (requests,) int64, all different.
            layer: The layer.
            wanted: (requests, heads) int64, pages to append to each list.
        """
        if not bool(wanted.any()):
            return
        for row, slot in enumerate(slots.tolist()):
            if self._recycled[slot]:
                wanted[row] -= self._reuse(slot, layer, wanted[row])
        before = wanted.flatten().cumsum(0).view(wanted.shape) - wanted  # pages of earlier lists, all requests
        start = self.bump[slots].long() - before[:, 0]
        first = start[:, None] + before
        index = torch.repeat_interleave(torch.arange(wanted.numel(), device=wanted.device), wanted.flatten())
        rank = torch.arange(len(index), device=wanted.device) - before.flatten()[index]
        virtual = first.flatten()[index] + rank
        owner, head = slots[index // self.heads], index % self.heads
        self.bump[slots] += wanted.sum(1).to(torch.int32)
        assert bool((self.bump[slots] <= self.supplied[slots] * self.size).all()), "page over-commit"
        page = self.supply[owner, virtual // self.size] * self.size + (virtual % self.size).to(torch.int32)
        place = self.capacity[owner, layer, head] + rank
        self.page_table[owner, layer, head, place] = page.to(torch.int32)
        self.capacity[slots, layer] += wanted.to(torch.int32)

    def _reuse(self, slot: int, layer: int, wanted: Tensor) -> Tensor:
        """Serve lists of one request from the pages that others of its lists gave up; returns how many each got."""
        pages, got = self._recycled[slot], torch.zeros_like(wanted)
        for head, count in enumerate(wanted.tolist()):
            for _ in range(min(count, len(pages))):
                self.page_table[slot, layer, head, self.capacity[slot, layer, head]] = pages.pop()
                self.capacity[slot, layer, head] += 1
                got[head] += 1
        return got

    def shorten(self, slot: int, layer: int) -> None:
        """Give up the pages of one request's lists of a layer that hold no entries."""
        used = -(-self.lens[slot, layer] // self.page_tokens)
        for head in torch.nonzero(used < self.capacity[slot, layer])[:, 0].tolist():
            keep, have = int(used[head]), int(self.capacity[slot, layer, head])
            self._recycled[slot] += self.page_table[slot, layer, head, keep:have].tolist()
            self.capacity[slot, layer, head] = keep

    def compact(self, slot: int) -> list[tuple[int, int]]:
        """Once the pages given up make a superblock, bring those in use to the beginning of the virtual pages.

        Returns:
            (from, to) pairs of pages whose contents the caller has to copy, in any order.
        """
        recycled = self._recycled[slot]
        if len(recycled) < self.size:
            return []
        in_use = int(self.bump[slot]) - len(recycled)
        blocks = self.supply[slot, : int(self.supplied[slot])].tolist()
        places = range(self.size)
        virtual = {b * self.size + place: v * self.size + place for v, b in enumerate(blocks) for place in places}
        holes = sorted((page for page in recycled if virtual[page] < in_use), key=virtual.__getitem__)
        moves = []
        for layer in range(self.layers):
            for head in range(self.heads):
                for place in range(int(self.capacity[slot, layer, head])):
                    page = int(self.page_table[slot, layer, head, place])
                    if virtual[page] >= in_use:
                        target = holes.pop()
                        self.page_table[slot, layer, head, place] = target
                        self.expiry[target] = self.expiry[page]
                        moves.append((page, target))
        assert not holes, "as many pages move as there are holes"
        self.bump[slot] = in_use
        self._recycled[slot] = []
        return moves

    # -- entries ----------------------------------------------------------------------------------------------------

    def entries(self, slots: Tensor, layer: int, places: Tensor) -> Tensor:
        """Where entries lie in the cache, as page * N + place in the page.

        Args:
            slots: (requests,) int64.
            layer: The layer.
            places: (requests, heads) int64, places in the lists.

        Returns:
            (requests, heads) int64.
        """
        heads = torch.arange(self.heads, device=places.device)
        page = self.page_table[slots[:, None], layer, heads, places // self.page_tokens].long()
        found: Tensor = page * self.page_tokens + places % self.page_tokens
        return found

    def alive(self, slot: int, query: int) -> int:
        """Entries of a request that a query at this position sees, over all layers and heads."""
        return int(self.count_alive(slot, query, int(self.lens[slot].max())))

    def count_alive(self, slot: int, query: int, most: int) -> Tensor:
        """The same as a tensor, () int64, without waiting for the device; no list has more than ``most`` entries."""
        total = torch.zeros((), dtype=torch.int64, device=self.expiry.device)
        places = torch.arange(ceil_div(most, self.page_tokens) * self.page_tokens, device=self.expiry.device)
        for lens, table in zip(self.lens[slot], self.page_table[slot], strict=True):
            expiry = self.expiry[table[:, : ceil_div(most, self.page_tokens)].long()].flatten(1)
            total += ((places < lens[:, None]) & (expiry > query)).sum()
        return total
