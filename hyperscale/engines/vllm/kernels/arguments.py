"""Types of the kernels' arguments: the tables, the cache as pages, the requests of a step."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hyperscale.kv.formats import SCALE_BYTES


class KernelTables(Protocol):
    """A worker's tables, all contiguous tensors on the cache's device; slot 0 is a dummy that is never read or written.

    A list is what one KV head of one layer keeps of one request: entry j lies in the list's page j // N at place j % N.

    Attributes:
        page_tokens: N, entries of a page.
        slot_of_block: (blocks,) int32, the slot of the request whose first superblock this is.
        superblocks: (slots, superblocks) int32, ids of each slot's superblocks.
        num_superblocks: (slots,) int32, how many there are.
        pages_used: (slots,) int32, pages handed out, in the order of the superblocks. After an over-commit it is above
            ``num_superblocks`` times the lists of a request; the kernels send such pages to block 0, as they cannot
            raise. Whoever reads ``pages_used`` has to check.
        page_table: (slots, layers, heads, pages) int32, the pages of each list in order.
        num_pages: (slots, layers, heads) int32, pages of each list.
        lens: (slots, layers, heads) int32, entries of each list.
        newest: (slots, layers, heads) int32, where in the list the newest token's entry is; -1 if it was not stored.
        expiry: (pages of the cache, N) int32, the first query position that no longer sees the entry.
    """

    page_tokens: int
    slot_of_block: Tensor
    superblocks: Tensor
    num_superblocks: Tensor
    pages_used: Tensor
    page_table: Tensor
    num_pages: Tensor
    lens: Tensor
    newest: Tensor
    expiry: Tensor


@dataclass(frozen=True)
class PagedCache:
    """The cache as single-head pages, one view of it for keys and one for values.

    Attributes:
        keys: (pages, N, head_dim), after RoPE; entries are contiguous, pages may be strided. Codes of e4m3 in uint8
            where the cache is quantised.
        values: As keys, with the same strides.
        scales: (pages, N) int32, of a quantised cache: bits of the key's and of the value's scale, float16 each, the
            former in the lower half. None if it is not quantised.
    """

    keys: Tensor
    values: Tensor
    scales: Tensor | None = None

    @classmethod
    def of(cls, cache: Tensor) -> "PagedCache":
        """Wrap vLLM's cache tensor, (blocks, lists, N, 2 * width).

        A page's keys come before its values. A cache of bytes is quantised: its width is that of
        `hyperscale.kv.formats`, head_dim and the scale, and the scales of a page lie behind its values.
        """
        blocks, num_lists, tokens, double = cache.shape
        if cache.dtype != torch.uint8:
            keys, values = cache.view(blocks * num_lists, 2 * tokens, double // 2).chunk(2, dim=1)
            return cls(keys, values)
        dim = double // 2 - SCALE_BYTES
        pages = cache.view(blocks * num_lists, tokens * double)
        codes = pages[:, : 2 * tokens * dim].view(len(pages), 2 * tokens, dim)
        keys, values = codes.chunk(2, dim=1)
        return cls(keys, values, pages[:, 2 * tokens * dim :].view(torch.int32))

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All tensors of the cache: index each by page, and by place, to move entries as they are stored."""
        return (self.keys, self.values) if self.scales is None else (self.keys, self.values, self.scales)

    def read_keys(self, pages: Tensor, dtype: torch.dtype) -> Tensor:
        """Keys (…, N, head_dim) of pages (…) int64, dequantised; in plain torch."""
        return self._read(self.keys, 0, pages, dtype)

    def read_values(self, pages: Tensor, dtype: torch.dtype) -> Tensor:
        """Values, as `read_keys`."""
        return self._read(self.values, 1, pages, dtype)

    def _read(self, part: Tensor, first: int, pages: Tensor, dtype: torch.dtype) -> Tensor:
        if self.scales is None:
            return part[pages]
        scales = self.scales[pages].view(torch.float16).to(torch.float32)  # (…, 2 N): key's, value's, key's, …
        return (part[pages].view(torch.float8_e4m3fn).to(torch.float32) * scales[..., first::2, None]).to(dtype)


@dataclass(frozen=True)
class DecodeRequests:
    """The requests of a step that process one token each.

    Attributes:
        first_blocks: (requests,) int32, any stride: the id of each request's first superblock. Block 0 is padding.
        positions: (requests,) int32 or int64, of the tokens being processed.
    """

    first_blocks: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Victims:
    """The entry that each list gives up when it is full, of a method that has chosen it in the step before.

    Attributes:
        places: (layers, slots, heads) int64, contiguous: its place in the list.
        limits: (requests,) int64, in the order of the batch: a list with so many entries is full.
    """

    places: Tensor
    limits: Tensor


@dataclass(frozen=True)
class ChosenPages:
    """What decode attention reads of lists that are cut in pages of a method's own: some of the pages.

    Attributes:
        size: Entries of such a page; the last one of a list may have fewer.
        numbers: (requests, heads, pages) int32, contiguous: the pages that any query head reads, in ascending order.
        readers: As numbers: bit g is set if query head g of the group reads the page.
        lens: (requests, heads) int32, contiguous: entries of all these pages.
    """

    size: int
    numbers: Tensor
    readers: Tensor
    lens: Tensor


@dataclass(frozen=True)
class ChunkRequests:
    """The requests of a step that process several tokens each.

    Attributes:
        first_blocks: As in `DecodeRequests`.
        offsets: (requests + 1,) int32, where each request's tokens begin in the batch; the last is where they end.
        starts: (requests,) int32 or int64, position of each request's first token in this step.
        longest: At least the tokens of the longest chunk; sets the size of the launch.
    """

    first_blocks: Tensor
    offsets: Tensor
    starts: Tensor
    longest: int
