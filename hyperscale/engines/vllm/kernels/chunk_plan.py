# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Before a chunk attends: which of its tokens outlive it, in what order they are read, where they will be stored."""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Chunks, Tables
from hyperscale.engines.vllm.kernels.common import expiries, fresh_page

LATEST = 64  # passing tokens that share one entry of `Plan.latest`
SCAN = 1024


@dataclass(frozen=True)
class Plan:
    """What one layer's chunks do; tokens are named by their number in their request's chunk.

    Attributes:
        expiry: (heads, tokens) int32, of each token.
        lasting: (heads, tokens) int32; in each request's part, first the tokens that the next query will see, in order.
        passing: (heads, tokens) int32, likewise those that are gone by then.
        rank: (heads, tokens) int32, lasting tokens up to and including each.
        latest: (heads, blocks) int32, the latest expiry of each ``LATEST`` of ``passing``; request r begins at
            offsets[r] // LATEST + r.
        places: (heads, tokens) int32, where in the list each of ``lasting`` goes.
        held: (requests, heads) int32, entries of each list before.
        kept: (requests, heads) int32, tokens that will be stored.
    """

    expiry: Tensor
    lasting: Tensor
    passing: Tensor
    rank: Tensor
    latest: Tensor
    places: Tensor
    held: Tensor
    kept: Tensor


@triton.jit(do_not_specialize=["layer", "tokens", "blocks"])
def _plan(
    chunk_expiry,
    first_blocks,
    first_stride,
    offsets,
    starts,
    slot_of_block,
    supply,
    supply_stride,
    supplied,
    bump,
    page_table,
    table_pages,
    capacity,
    lens,
    expiry,
    lasting,
    passing,
    ranks,
    latest,
    places,
    held_out,
    kept_out,
    layer,
    layers,
    heads,
    tokens,
    blocks,
    N: tl.constexpr,
    LATEST: tl.constexpr,
    SCAN: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    base = tl.load(offsets + row)
    count = tl.load(offsets + row + 1) - base
    following = tl.load(starts + row).to(tl.int32) + count  # the next query
    mine = head.to(tl.int64) * tokens + base
    maxima = latest + head.to(tl.int64) * blocks + base // LATEST + row
    kept = count * 0
    for at in range(0, count, SCAN):
        index = at + tl.arange(0, SCAN)
        inside = index < count
        expires = tl.load(chunk_expiry + mine + index, mask=inside, other=0)
        lasts = inside & (expires > following)
        rank = kept + tl.cumsum(lasts.to(tl.int32), 0)
        tl.store(ranks + mine + index, rank, mask=inside)
        tl.store(lasting + mine + rank - 1, index, mask=lasts)
        passes = inside & (expires <= following)
        tl.store(passing + mine + index - rank, index, mask=passes)
        tl.atomic_max(maxima + (index - rank) // LATEST, expires, mask=passes)
        kept += tl.sum(lasts.to(tl.int32), 0)

    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    if slot == 0:
        tl.store(held_out + row * heads + head, 0)
        tl.store(kept_out + row * heads + head, 0)
        return
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages
    held = tl.load(lens + list_)
    gaps = held * 0
    for at in range(0, held, SCAN):
        index = at + tl.arange(0, SCAN)
        gone = (index < held) & (expiries(index, held, pages, expiry, -1, 0, N) <= following)
        rank = gaps + tl.cumsum(gone.to(tl.int32), 0) - 1
        tl.store(places + mine + rank, index, mask=gone & (rank < kept))
        gaps += tl.sum(gone.to(tl.int32), 0)
    for at in range(gaps, kept, SCAN):
        rank = at + tl.arange(0, SCAN)
        tl.store(places + mine + rank, held + rank - gaps, mask=rank < kept)
    length = held - gaps + kept
    have = tl.load(capacity + list_)
    wanted = (length + N - 1) // N - have
    if wanted > 0:
        first = tl.atomic_add(bump + slot, wanted)
        for at in range(0, wanted, SCAN):
            index = at + tl.arange(0, SCAN)
            page = fresh_page(first + index, slot, supply, supply_stride, supplied, layers * heads)
            tl.store(pages + have + index, page, mask=index < wanted)
        tl.store(capacity + list_, have + wanted)
    tl.store(lens + list_, length)
    tl.store(held_out + row * heads + head, held)
    tl.store(kept_out + row * heads + head, kept)


def plan_chunks(tables: Tables, layer: int, chunks: Chunks, expiry: Tensor) -> Plan:
    """Sort a layer's tokens into those that stay and those that pass, and make room for the former.

    Lengths and pages of the lists change here; entries do not before `write_survivors`, so that the chunk can attend
    to them in between. `Plan.held` says how many there are until then.

    Args:
        tables: The worker's tables; changed.
        layer: The layer.
        chunks: The requests, each once; those of block 0 attend to their own tokens and leave the tables alone.
        expiry: (heads, tokens) int32, contiguous, of each token; each is later than the token's own position.
    """
    heads, tokens = expiry.shape
    count = len(chunks.starts)
    blocks = tokens // LATEST + count + 1
    lasting, passing, rank, places = expiry.new_empty(4, heads, tokens)
    latest = expiry.new_zeros(heads, blocks)
    held, kept = expiry.new_empty(2, count, heads)
    _plan[(count, heads)](
        expiry,
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.supply,
        tables.supply.stride(0),
        tables.supplied,
        tables.bump,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.capacity,
        tables.lens,
        tables.expiry,
        lasting,
        passing,
        rank,
        latest,
        places,
        held,
        kept,
        layer,
        tables.page_table.shape[1],
        heads,
        tokens,
        blocks,
        N=tables.page_tokens,
        LATEST=LATEST,
        SCAN=SCAN,
        num_warps=8,
    )
    return Plan(expiry, lasting, passing, rank, latest, places, held, kept)
