"""Types of the kernels' arguments: the tables, the cache as pages, the requests of a step."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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
        keys: (pages, N, head_dim), after RoPE; entries are contiguous, pages may be strided.
        values: As keys, with the same strides.
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def of(cls, cache: Tensor) -> "PagedCache":
        """Wrap vLLM's cache tensor (blocks, lists, N, 2 * head_dim); a page's keys come before its values."""
        blocks, num_lists, tokens, double = cache.shape
        keys, values = cache.view(blocks * num_lists, 2 * tokens, double // 2).chunk(2, dim=1)
        return cls(keys, values)


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
