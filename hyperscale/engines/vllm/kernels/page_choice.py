# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Chooses the pages of each list that a decode step reads, by bounds on the keys of each page: Quest's rule.

It is what the state of `hyperscale.methods.quest` does, on what is kept by slot, in two kernels. The first gives every
page its bound on q·k, and takes the new key into the bounds of the page being filled; beside that it appends the new
entries to the lists, as `decode_update` would in a kernel of its own. The second finds, for each query
head, the pages of the greatest bounds, and lists the pages that any head of a group reads. Nothing is sorted: the
least bound that is good enough is found by bisection, on the bounds as integers of the same order. That is a chain of
counts, each of which waits for the one before, so every query head has a warp of its own.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChosenPages, DecodeRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.common import NEVER
from hyperscale.engines.vllm.kernels.decode_update import SCAN, store_entry

BLOCK = 64  # pages whose bounds a program looks at
MOST_LISTED = 2048  # pages that a program lists at once
_PAGES_OF_WARP = 512  # of those that a program chooses among
_ALIGNED = 16  # a row of bounds is a multiple of it, so that it is read in wide pieces


@dataclass(frozen=True)
class KeyBounds:
    """Bounds of the keys of the pages of one layer, by slot; changed.

    Attributes:
        size: Entries of a page.
        least: (slots, heads, pages, head_dim), contiguous, the least number that the page's keys have in a dimension.
        greatest: Likewise.
    """

    size: int
    least: Tensor
    greatest: Tensor


@dataclass(frozen=True)
class PageStep:
    """What is the same in all layers of a step; (requests,) int64 each.

    Attributes:
        budgets: How many pages a query head reads.
        in_prompt: 1 where the token is still the prompt's, which reads everything; 0 elsewhere.
    """

    budgets: Tensor
    in_prompt: Tensor


@triton.jit(do_not_specialize=["layer"])
def _page_bounds_kernel(
    queries,
    query_stride,
    new_keys,
    new_values,
    token_stride,
    head_stride,
    first_blocks,
    first_stride,
    positions,
    in_prompt,
    slot_of_block,
    least,
    greatest,
    pages,
    bounds,
    bounds_stride,
    # for the new entries, as in `decode_update`
    superblocks,
    superblocks_stride,
    num_superblocks,
    pages_used,
    page_table,
    table_pages,
    num_pages,
    lens,
    newest_places,
    expiry,
    keys,
    values,
    scales,
    page_stride,
    lens_out,
    lens_out_stride,
    block_table,
    block_stride,
    layer,
    layers,
    heads,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    SCAN: tl.constexpr,
    FP8: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # Grid (1 + blocks of pages, lists): the first program of a list appends its new entry, every other one works on
    # BLOCK of its pages. None of them reads what another one writes.
    part, list_ = tl.program_id(0), tl.program_id(1)
    request, head = list_ // heads, list_ % heads
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride)).to(tl.int64)
    length_out = lens_out + request.to(tl.int64) * lens_out_stride + head
    if slot == 0:  # padding
        tl.store(length_out, 0, mask=part == 0)
        return
    if part == 0:
        stored_list = (slot * layers + layer) * heads + head
        num_stored = tl.load(lens + stored_list)
        store_entry(
            new_keys,
            new_values,
            request.to(tl.int64) * token_stride + head * head_stride,
            num_stored,
            num_stored + 1,
            num_stored * 0 + NEVER,
            slot,
            stored_list,
            superblocks,
            superblocks_stride,
            num_superblocks,
            layers * heads,
            pages_used,
            page_table + stored_list * table_pages,
            num_pages,
            lens,
            newest_places,
            expiry,
            keys,
            values,
            scales,
            page_stride,
            length_out,
            block_table + list_.to(tl.int64) * block_stride,
            N,
            D,
            SCAN,
            FP8,
        )
        return
    begin = (part - 1) * BLOCK
    position = tl.load(positions + request).to(tl.int32)
    current = position // SIZE  # the page being filled
    if (begin > current) | (tl.load(in_prompt + request) != 0):
        return
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    page = begin + tl.arange(0, BLOCK)
    is_full = page < current
    query_at = request.to(tl.int64) * query_stride + (head * G + g[:, None]) * D + d[None, :]
    q = tl.load(queries + query_at, mask=(g < G)[:, None], other=0.0)
    table = (slot * heads + head) * pages
    at = (table + page[:, None]) * D + d[None, :]
    low = tl.load(least + at, mask=is_full[:, None], other=0.0)
    high = tl.load(greatest + at, mask=is_full[:, None], other=0.0)
    # The greatest product that a key within the bounds could have: each dimension takes the bound of the query's sign.
    zero = tl.zeros_like(q)
    bound = tl.dot(tl.where(q > 0, q, zero), tl.trans(high), input_precision=PRECISION)
    bound = tl.dot(tl.where(q > 0, zero, q), tl.trans(low), bound, input_precision=PRECISION)
    out = (list_.to(tl.int64) * G + g)[:, None] * bounds_stride + page[None, :]
    tl.store(bounds + out, bound, mask=(g < G)[:, None] & is_full[None, :])

    # The new key; no query looks at the bounds of the page that it goes to.
    if begin + BLOCK > current:
        key = tl.load(new_keys + request.to(tl.int64) * token_stride + head * head_stride + d)
        own = (table + current) * D + d
        if position % SIZE != 0:  # else the page begins, and what the tables hold for it does not count
            tl.store(least + own, tl.minimum(tl.load(least + own), key))
            tl.store(greatest + own, tl.maximum(tl.load(greatest + own), key))
        else:
            tl.store(least + own, key)
            tl.store(greatest + own, key)


@triton.jit
def _choose_pages_kernel(
    bounds,
    stride,
    first_blocks,
    first_stride,
    positions,
    budgets,
    in_prompt,
    slot_of_block,
    pages,
    is_chosen,
    done,
    numbers,
    readers,
    lens_out,
    reads,
    heads,
    G: tl.constexpr,
    PAGES: tl.constexpr,
    LISTED: tl.constexpr,
    SIZE: tl.constexpr,
):
    # Grid (query heads of a list, lists): a program chooses for one query head; the last one of a list that is done
    # lists the pages that any of them reads.
    g, list_ = tl.program_id(0), tl.program_id(1)
    request = list_ // heads
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride)).to(tl.int64)
    if slot == 0:  # padding reads nothing
        tl.store(lens_out + list_, 0)
        return
    position = tl.load(positions + request).to(tl.int32)
    current = position // SIZE
    # The page being filled is always read, so the others have one less to give; of fewer, all are read.
    wanted = tl.minimum(tl.load(budgets + request).to(tl.int32) - 1, current)
    wanted = tl.where(tl.load(in_prompt + request) != 0, current, wanted)
    page = tl.arange(0, PAGES)
    is_full = page < current
    first_row = list_.to(tl.int64) * G * stride
    has_room = page < stride
    # Integers in the order of the bounds; 0 and -0 are equal. Those of other pages are below all of them.
    LEAST: tl.constexpr = -2147483648
    if wanted < current:
        # As far as there is room, so that it is loaded in wide pieces; what stands behind the bounds is not looked at.
        bits = tl.load(bounds + first_row + g * stride + page, mask=has_room, other=0.0).to(tl.int32, bitcast=True)
        rank = tl.where(bits == LEAST, 0, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits))
        rank = tl.where(is_full, rank, LEAST)
        # At least ``wanted`` pages have the rank ``enough`` or more, fewer have ``few``: the two close in.
        enough = tl.min(tl.where(is_full, rank, 0x7FFFFFFF), 0)
        few = tl.max(rank, 0) + 1
        count = current
        # Done where the least rank that is enough is known, or where just as many pages as wanted have it.
        while (wanted > 0) & (enough + 1 < few) & (count != wanted):
            middle = (enough & few) + ((enough ^ few) >> 1)  # rounded down, without an overflow
            count = tl.sum((rank >= middle).to(tl.int32), 0)
            enough = tl.where(count >= wanted, middle, enough)
            few = tl.where(count < wanted, middle, few)
        above = rank > enough
        equal = rank == enough
        left = wanted - tl.sum(above.to(tl.int32), 0)  # for pages of equal bounds: the first of them
        is_read = (above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= left))) & is_full & (wanted > 0)
    else:
        is_read = is_full
    is_read = is_read | (page == current)
    tl.store(is_chosen + first_row + g * stride + page, is_read.to(tl.int8), mask=has_room)
    tl.debug_barrier()  # all of the program's threads have stored
    if tl.atomic_add(done + list_, 1, sem="acq_rel", scope="gpu") == G - 1:
        tl.store(done + list_, 0)  # for the next launch
        count = position * 0
        for begin in range(0, current + 1, LISTED):
            index = begin + tl.arange(0, LISTED)
            reader_bits = tl.zeros((LISTED,), tl.int32)
            for other in tl.static_range(G):
                # Not from a multiprocessor's own cache, which does not see what other programs of the kernel write.
                at = is_chosen + first_row + other * stride + index
                is_its = tl.load(at, mask=index < stride, other=0, cache_modifier=".cg")
                reader_bits |= is_its.to(tl.int32) << other
            is_any = reader_bits != 0
            out = list_.to(tl.int64) * pages + count + tl.cumsum(is_any.to(tl.int32), 0) - 1
            tl.store(numbers + out, index, mask=is_any)
            tl.store(readers + out, reader_bits, mask=is_any)
            count += tl.sum(is_any.to(tl.int32), 0)
        entries = (count - 1) * SIZE + position % SIZE + 1  # the page being filled holds the new entry too
        tl.store(lens_out + list_, entries)
        tl.atomic_add(reads + slot, entries.to(tl.int64))


def append_and_bound(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    requests: DecodeRequests,
    step: PageStep,
    kept: KeyBounds,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    lens_out: Tensor,
    block_table: Tensor,
) -> Tensor:
    """Append a token to every list of a layer, and bound q·k of each query head and full page of its list.

    Args:
        tables: The worker's tables; changed.
        cache: The cache; changed.
        layer: The layer.
        requests: The requests, each once; those of block 0 are left alone.
        step: What the step says of them.
        kept: Bounds of the layer's pages; the new keys are taken in.
        queries: (requests, heads, group, head_dim), after RoPE; requests may be strided, the rest is contiguous.
        keys: (requests, heads, head_dim), after RoPE; head_dim contiguous.
        values: As keys, with the same strides.
        lens_out: (requests, heads) int32, rows may be strided; written: entries of each list.
        block_table: (requests, heads, pages) int32, contiguous; written as far as a list has entries: its pages.

    Returns:
        (requests, heads, group, at least the pages) float32; of no meaning for pages that are not full, and where the
        token is still the prompt's.
    """
    count, heads, group, dim = queries.shape
    pages = kept.least.shape[2]
    stride = triton.cdiv(pages, _ALIGNED) * _ALIGNED
    bounds = torch.empty(count, heads, group, stride, dtype=torch.float32, device=queries.device)
    if not count:
        return bounds
    _page_bounds_kernel[(1 + triton.cdiv(pages, BLOCK), count * heads)](
        queries,
        queries.stride(0),
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        requests.first_blocks,
        requests.first_blocks.stride(0),
        requests.positions,
        step.in_prompt,
        tables.slot_of_block,
        kept.least,
        kept.greatest,
        pages,
        bounds,
        stride,
        tables.superblocks,
        tables.superblocks.stride(0),
        tables.num_superblocks,
        tables.pages_used,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.num_pages,
        tables.lens,
        tables.newest,
        tables.expiry,
        cache.keys,
        cache.values,
        cache.keys if cache.scales is None else cache.scales,
        cache.keys.stride(0),
        lens_out,
        lens_out.stride(0),
        block_table,
        block_table.shape[-1],
        layer,
        tables.page_table.shape[1],
        heads,
        N=tables.page_tokens,
        D=dim,
        G=group,
        ROWS=max(triton.next_power_of_2(group), 16),  # the least that tl.dot takes
        SIZE=kept.size,
        BLOCK=BLOCK,
        SCAN=SCAN,
        FP8=cache.scales is not None,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        num_warps=4,
    )
    return bounds


def choose_pages(
    tables: KernelTables,
    requests: DecodeRequests,
    step: PageStep,
    bounds: Tensor,
    pages: int,
    size: int,
    reads: Tensor,
    done: Tensor,
) -> ChosenPages:
    """The pages that a step reads of a layer's lists, in which nothing is ever evicted: place p holds position p.

    Args:
        tables: The worker's tables.
        requests: The requests; those of block 0 read nothing.
        step: What the step says of them.
        bounds: As `append_and_bound` gives them.
        pages: At least the pages of the longest list.
        size: Entries of a page.
        reads: (slots,) int64: the entries that are read are added to each request's.
        done: int32, as many as there are lists or more, zeros between two launches: kept by the caller, made once.
            Counts the query heads of each list that have chosen.
    """
    count, heads, group, stride = bounds.shape
    width = triton.next_power_of_2(stride)
    options = {"dtype": torch.int32, "device": bounds.device}
    numbers = torch.empty(count, heads, pages, **options)  # type: ignore[call-overload]
    chosen = ChosenPages(
        size,
        numbers,
        torch.empty_like(numbers),
        torch.empty(count, heads, **options),  # type: ignore[call-overload]
    )
    assert done.is_contiguous() and done.numel() >= count * heads  # noqa: PT018
    if not count:
        return chosen
    _choose_pages_kernel[(group, count * heads)](
        bounds,
        stride,
        requests.first_blocks,
        requests.first_blocks.stride(0),
        requests.positions,
        step.budgets,
        step.in_prompt,
        tables.slot_of_block,
        pages,
        torch.empty_like(bounds, dtype=torch.int8),
        done,
        chosen.numbers,
        chosen.readers,
        chosen.lens,
        reads,
        heads,
        G=group,
        PAGES=width,
        LISTED=min(width, MOST_LISTED),
        SIZE=size,
        # One warp for as many bounds as its registers hold: its threads count them without waiting for each other.
        num_warps=min(max(width // _PAGES_OF_WARP, 1), 32),
    )
    return chosen
