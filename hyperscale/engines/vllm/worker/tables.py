"""Records which pages each list has, how many entries, and when each entry expires.

All tables are tensors on the cache's device, one row a slot, so that kernels can work on them; a slot is a place for
one running request. Slot 0 is a dummy: vLLM's null block 0 maps to it, and nothing of it is ever read.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import NEVER, ceil_div

_ENTRIES_AT_ONCE = 1 << 21  # that are looked at together, so that it takes little memory


class EntryTables:
    """Tables of one worker.

    A page is named by its number in the cache: block * num_lists + number in the superblock. A request's *virtual* page
    v is page v % num_lists of its superblock number v // num_lists. ``pages_used`` counts the virtual pages in use, so
    what a request uses is always the beginning of what it holds (a bump allocator a request).

    Attributes:
        layers: Attention layers.
        heads: KV heads of a layer on this worker.
        page_tokens: N.
        num_lists: Lists of a request, layers * heads: also the pages of a superblock.
        slot_of_block: (blocks,) int32, the slot of the request whose first superblock this is; else stale or 0.
        superblocks: (slots, superblocks) int32, the ids of each slot's superblocks.
        num_superblocks: (slots,) int32, how many there are.
        pages_used: (slots,) int32, virtual pages in use.
        page_table: (slots, layers, heads, pages) int32, the pages of each list in order.
        num_pages: (slots, layers, heads) int32, pages of each list.
        lens: (slots, layers, heads) int32, entries of each list; entry j lies in page j // N at place j % N.
        newest: (slots, layers, heads) int32, where in the list the newest token's entry is.
        expiry: (pages of the cache, N) int32, the first query position that no longer sees the entry.
        request_params: (slots, 3) int64, prompt tokens, L, noise key.
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
        self.num_lists = layers * heads
        max_pages = ceil_div(max_tokens, page_tokens) + 1  # a full list may have its next page already
        int32 = {"dtype": torch.int32, "device": device}
        self.slot_of_block = torch.zeros(blocks, **int32)  # type: ignore[call-overload]
        # The head start of a step comes on top of the worst case.
        self.superblocks = torch.zeros(slots + 1, max_pages + 2, **int32)  # type: ignore[call-overload]
        self.num_superblocks = torch.zeros(slots + 1, **int32)  # type: ignore[call-overload]
        self.pages_used = torch.zeros(slots + 1, **int32)  # type: ignore[call-overload]
        self.page_table = torch.zeros(slots + 1, layers, heads, max_pages, **int32)  # type: ignore[call-overload]
        self.num_pages = torch.zeros(slots + 1, layers, heads, **int32)  # type: ignore[call-overload]
        self.lens = torch.zeros_like(self.num_pages)
        self.newest = torch.zeros_like(self.num_pages)
        # Indexed by page, not by slot and list: an expiry stays where its entry is when pages change hands.
        self.expiry = torch.full((blocks * self.num_lists, page_tokens), NEVER, **int32)  # type: ignore[call-overload]
        self.request_params = torch.zeros(slots + 1, 3, dtype=torch.int64, device=device)
        # Known to the host alone: slots without a request, and pages that a slot's lists have given up.
        self._free_slots = list(range(slots, 0, -1))
        self._recycled_pages: dict[int, list[int]] = {}

    @classmethod
    def for_engine(cls, vllm_config: Any, spec: Any, blocks: int, device: torch.device | str) -> Self:
        """Tables of the size that an engine needs.

        Args:
            vllm_config: vLLM's configuration.
            spec: The cache's `RaggedSpec`.
            blocks: Superblocks of the cache, the null block included.
            device: Where the cache is; "meta" to learn the tables' size only.
        """
        layers = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
        scheduler = vllm_config.scheduler_config
        return cls(
            layers=layers,
            heads=spec.num_kv_heads // layers,
            page_tokens=spec.block_size,
            blocks=blocks,
            slots=max(scheduler.max_num_seqs, getattr(scheduler, "max_num_active_seqs", None) or 0),
            max_tokens=vllm_config.model_config.max_model_len,
            device=device,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tables: memory that the cache needs besides itself."""
        return sum(table.nbytes for table in vars(self).values() if isinstance(table, Tensor))

    # -- requests ---------------------------------------------------------------------------------------------------

    def open_slot(self, first_block: int, request_params: Sequence[int]) -> int:
        """Give a request a slot, empty; returns it.

        Args:
            first_block: Id of the request's first superblock.
            request_params: Prompt tokens, L, noise key.
        """
        slot = self._free_slots.pop()
        for table in (self.num_superblocks, self.pages_used, self.num_pages, self.lens, self.newest):
            table[slot] = 0
        # Page numbers and expiries of the slot's former request may stay: nothing is read beyond lengths and counts.
        self.request_params[slot] = torch.tensor(request_params)
        self.slot_of_block[first_block] = slot
        self._recycled_pages[slot] = []
        return slot

    def close_slot(self, slot: int) -> None:
        """Take the slot back; its superblocks are no longer its own."""
        self._recycled_pages.pop(slot)
        self.num_superblocks[slot] = 0
        self._free_slots.append(slot)

    def set_superblocks(self, slot: int, num_kept: int, new_blocks: Sequence[int]) -> None:
        """Change a slot's superblocks to the first ``num_kept`` that it has and the new ones."""
        assert self.pages_used[slot] <= num_kept * self.num_lists, "superblocks in use were taken away"
        # Superblocks past the count may stay in the table: nothing reads them.
        count = num_kept + len(new_blocks)
        self.superblocks[slot, num_kept:count] = torch.tensor(new_blocks, dtype=torch.int32)
        self.num_superblocks[slot] = count

    # -- pages ------------------------------------------------------------------------------------------------------

    def append_pages(self, slots: Tensor, layer: int, counts: Tensor) -> None:
        """Append pages to lists of one layer.

        Args:
            slots: (requests,) int64, all different.
            layer: The layer.
            counts: (requests, heads) int64, pages to append to each list; changed.
        """
        if not bool(counts.any()):
            return
        # Pages that other lists of the same request have given up are used first.
        for row, slot in enumerate(slots.tolist()):
            if self._recycled_pages[slot]:
                counts[row] -= self._append_recycled(slot, layer, counts[row])
        # All requests at once: number the pages of all lists in one row, then shift each request's numbers so that they
        # begin at its own count of pages in use. ``rank`` is a page's number among the new ones of its list.
        before = counts.flatten().cumsum(0).view(counts.shape) - counts  # pages of earlier lists, all requests
        start = self.pages_used[slots].long() - before[:, 0]
        first = start[:, None] + before
        index = torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts.flatten())
        rank = torch.arange(len(index), device=counts.device) - before.flatten()[index]
        virtual = first.flatten()[index] + rank
        owner, head = slots[index // self.heads], index % self.heads
        self.pages_used[slots] += counts.sum(1).to(torch.int32)
        limit = self.num_superblocks[slots] * self.num_lists
        assert bool((self.pages_used[slots] <= limit).all()), "page over-commit"
        block = self.superblocks[owner, virtual // self.num_lists]
        page = block * self.num_lists + (virtual % self.num_lists).to(torch.int32)
        place = self.num_pages[owner, layer, head] + rank
        self.page_table[owner, layer, head, place] = page.to(torch.int32)
        self.num_pages[slots, layer] += counts.to(torch.int32)

    def _append_recycled(self, slot: int, layer: int, counts: Tensor) -> Tensor:
        """Serve lists of one request from its recycled pages; returns how many each got, (heads,) int64."""
        pages, num_served = self._recycled_pages[slot], torch.zeros_like(counts)
        for head, count in enumerate(counts.tolist()):
            for _ in range(min(count, len(pages))):
                self.page_table[slot, layer, head, self.num_pages[slot, layer, head]] = pages.pop()
                self.num_pages[slot, layer, head] += 1
                num_served[head] += 1
        return num_served

    def recycle_empty_pages(self, slot: int, layer: int) -> None:
        """Take from one request's lists of a layer the pages that hold no entries, for others of its lists."""
        needed_pages = -(-self.lens[slot, layer] // self.page_tokens)
        for head in torch.nonzero(needed_pages < self.num_pages[slot, layer])[:, 0].tolist():
            begin, end = int(needed_pages[head]), int(self.num_pages[slot, layer, head])
            self._recycled_pages[slot] += self.page_table[slot, layer, head, begin:end].tolist()
            self.num_pages[slot, layer, head] = begin

    def compact(self, slot: int) -> list[tuple[int, int]]:
        """Once the recycled pages make a superblock, bring those in use to the beginning of the virtual pages.

        Only then does ``pages_used`` fall, and the scheduler sees that the request needs less.

        Returns:
            (from, to) pairs of pages whose contents the caller has to copy, in any order.
        """
        recycled_pages = self._recycled_pages[slot]
        if len(recycled_pages) < self.num_lists:
            return []
        in_use = int(self.pages_used[slot]) - len(recycled_pages)
        blocks = self.superblocks[slot, : int(self.num_superblocks[slot])].tolist()
        size = self.num_lists
        virtual = {b * size + place: v * size + place for v, b in enumerate(blocks) for place in range(size)}
        # Recycled pages in front of the new end are holes; pages in use behind it move into them. Both are equally
        # many, and no page is in both, so the copies need no order.
        holes = sorted((page for page in recycled_pages if virtual[page] < in_use), key=virtual.__getitem__)
        moves = []
        for layer in range(self.layers):
            for head in range(self.heads):
                for place in range(int(self.num_pages[slot, layer, head])):
                    page = int(self.page_table[slot, layer, head, place])
                    if virtual[page] >= in_use:
                        target = holes.pop()
                        self.page_table[slot, layer, head, place] = target
                        self.expiry[target] = self.expiry[page]
                        moves.append((page, target))
        assert not holes, "as many pages move as there are holes"
        self.pages_used[slot] = in_use
        self._recycled_pages[slot] = []
        return moves

    # -- entries ----------------------------------------------------------------------------------------------------

    def entry_numbers(self, slots: Tensor, layer: int, places: Tensor) -> Tensor:
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
        numbers: Tensor = page * self.page_tokens + places % self.page_tokens
        return numbers

    def count_live(self, slot: int, query: int) -> int:
        """Entries of a request that a query at this position sees, over all layers and heads."""
        return int(self.count_live_tensor(slot, query, int(self.lens[slot].max())))

    def count_live_tensor(self, slot: int, query: int, max_entries: int) -> Tensor:
        """The same as a tensor, () int64, without waiting for the device; no list has more than ``max_entries``."""
        pages = ceil_div(max_entries, self.page_tokens)
        places = torch.arange(pages * self.page_tokens, device=self.expiry.device)
        at_once = max(_ENTRIES_AT_ONCE // max(self.heads * len(places), 1), 1)
        counts = []
        for first in range(0, self.layers, at_once):
            lens, table = (of_lists[slot, first : first + at_once] for of_lists in (self.lens, self.page_table))
            expiry = self.expiry[table[..., :pages].long()].flatten(2)
            counts.append(((places < lens[..., None]) & (expiry > query)).sum())
        return counts[0] if len(counts) == 1 else torch.stack(counts).sum()
