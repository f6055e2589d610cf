"""Reads and moves entries of whole lists in a CUDA worker's cache, of many layers and requests at once.

Nothing waits for the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import PagedCache
from hyperscale.engines.vllm.protocol import ceil_div
from hyperscale.engines.vllm.worker.staged_tables import StagedTables
from hyperscale.utils.device_copy import upload


class CacheRows:
    """See `hyperscale.engines.vllm.worker.rows.Rows`."""

    def __init__(self, tables: StagedTables, cache: PagedCache, dtype: torch.dtype) -> None:
        """Rows of a worker's cache; keys and values are read in ``dtype``, the model's."""
        self._tables, self._cache, self._dtype = tables, cache, dtype

    def read_keys(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """See `Rows.read_keys`."""
        return self._clear(self._cache.read_keys(self._pages(slots, layers, count), self._dtype), slots, layers, count)

    def read_values(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        """See `Rows.read_values`."""
        values = self._cache.read_values(self._pages(slots, layers, count), self._dtype)
        return self._clear(values, slots, layers, count)

    def _pages(self, slots: Tensor, layers: slice, count: int) -> Tensor:
        table = self._tables.page_table[slots, layers, :, : ceil_div(count, self._tables.page_tokens)]
        pages: Tensor = table.long()
        return pages

    def _clear(self, pages: Tensor, slots: Tensor, layers: slice, count: int) -> Tensor:
        """From pages (…, pages, N, head_dim) to places, with zeros behind the ends of lists."""
        place = torch.arange(count, device=pages.device)
        # Behind a list's end lies what somebody else has left, which need not be finite.
        empty = (place >= self._tables.lens[slots, layers][..., None])[..., None]
        return pages.flatten(3, 4)[:, :, :, :count].masked_fill(empty, 0)

    def move(self, slots: Tensor, layers: slice, source: Tensor, counts: Tensor) -> None:
        """See `Rows.move`."""
        size, count = self._tables.page_tokens, source.shape[3]
        table = self._tables.page_table[slots, layers].long()
        place = torch.arange(count, device=source.device)
        pages = table[..., : ceil_div(count, size)].repeat_interleave(size, dim=3)[..., :count]
        # Places behind the last entry may have no page: what is written there goes to page 0, which is nobody's.
        pages = torch.where(place < counts[:, None, None, None], pages, 0)
        source_pages, source_places, places = table.gather(3, source // size), source % size, place % size
        for part in self._cache.parts:  # as they are stored: nothing is rounded a second time
            part[pages, places] = part[source_pages, source_places]

    def shrink(self, kept: Sequence[tuple[int, int]]) -> None:
        """See `Rows.shrink`: the pages that stay become the first of the request's virtual pages."""
        tables = self._tables
        by_pages: dict[int, list[int]] = {}
        for slot, entries in kept:
            by_pages.setdefault(ceil_div(entries, tables.page_tokens), []).append(slot)
        for count, numbers in by_pages.items():
            slots = upload(numbers, tables.expiry.device)
            pages = tables.page_table[slots, :, :, :count].flatten(1).long()  # (requests, layers * heads * pages)
            virtual = torch.arange(pages.shape[1], device=pages.device)
            blocks = tables.superblocks[slots[:, None], virtual // tables.num_lists].long()
            targets = blocks * tables.num_lists + virtual % tables.num_lists
            # Copies first: a page that stays may be the target of another.
            for part in (*self._cache.parts, tables.expiry):
                part[targets] = part[pages]
            shape = (len(numbers), tables.layers, tables.heads, count)
            tables.page_table[slots, :, :, :count] = targets.view(shape).to(torch.int32)
            tables.num_pages.index_fill_(0, slots, count)
            tables.pages_used.index_fill_(0, slots, pages.shape[1])
