# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Chooses the pages of each list that a decode step reads, by bounds on the keys of each page: Quest's rule.

From the bounds of `page_bounds` it finds, for each query head, the pages of the greatest ones, and lists the pages that
any head of a group reads. Nothing is sorted: the least bound that is good enough is found by bisection, on the bounds
as integers of the same order. That is a chain of counts, each of which waits for the one before, so every query head
has a warp of its own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChosenPages, DecodeRequests, KernelTables
from hyperscale.engines.vllm.kernels.page_bounds import PageStep

MOST_LISTED = 2048  # pages that a program lists at once
_PAGES_OF_WARP = 512  # of those that a program chooses among


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
        bounds: As `page_bounds.append_and_bound` gives them.
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
