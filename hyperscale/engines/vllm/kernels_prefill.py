# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Attention of chunks to what is stored and to themselves, honouring expiries; and the writing of what outlives them.

A tile of queries reads three kinds of keys: the list's entries (masked by expiry), the chunk's tokens that outlive it
(masked by order alone) and those that do not. The latter are visible for a short while only, so of them a tile reads
the blocks from the first that has not wholly expired to the last that is not wholly in its future. At a compression of
CR the work on a chunk of n tokens is therefore about n^2 / (2 CR) + n w and not n^2 / 2.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels_common import close_gaps, expiries, softmax_block
from hyperscale.engines.vllm.kernels_plan import BLOCK, Plan
from hyperscale.engines.vllm.paged import Chunks, Pool, Tables


@triton.jit(do_not_specialize=["layer", "tokens", "blocks"])
def _attend(
    queries,
    query_stride,
    new_keys,
    new_values,
    token_stride,
    head_stride,
    keys,
    values,
    page_stride,
    first_blocks,
    first_stride,
    offsets,
    starts,
    slot_of_block,
    page_table,
    table_pages,
    expiry,
    chunk_expiry,
    lasting,
    passing,
    ranks,
    latest,
    held_in,
    out,
    out_stride,
    scale,
    layer,
    layers,
    heads,
    tokens,
    blocks,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    TILE: tl.constexpr = ROWS // G  # tokens
    row, head = tl.program_id(2), tl.program_id(1)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the last tiles have most to do
    base = tl.load(offsets + row)
    count = tl.load(offsets + row + 1) - base
    first = tile * TILE
    if first >= count:
        return
    start = tl.load(starts + row).to(tl.int32)
    final = tl.minimum(first + TILE, count) - 1
    lane, d = tl.arange(0, ROWS), tl.arange(0, D)
    token = first + lane // G
    real = (lane < TILE * G) & (token < count)
    query_head = head * G + lane % G
    at_q = (base + token).to(tl.int64) * query_stride + query_head * D
    q = tl.load(queries + at_q[:, None] + d[None, :], mask=real[:, None], other=0.0)
    position = (start + token)[:, None]

    high = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)

    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    held = tl.load(held_in + row * heads + head)
    for at in range(0, held, BLOCK):
        index = at + tl.arange(0, BLOCK)
        inside = index < held
        page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
        expires = tl.load(expiry + page * N + index % N, mask=inside, other=0)
        entry = page * page_stride + (index % N) * D
        k = tl.load(keys + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(values + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        visible = position < expires[None, :]
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    mine = head.to(tl.int64) * tokens + base
    chunk_keys = new_keys + base.to(tl.int64) * token_stride + head * head_stride
    chunk_values = new_values + base.to(tl.int64) * token_stride + head * head_stride
    lasts = tl.load(ranks + mine + final)
    for at in range(0, lasts, BLOCK):
        index = at + tl.arange(0, BLOCK)
        inside = index < lasts
        source = tl.load(lasting + mine + index, mask=inside, other=0)
        entry = source.to(tl.int64) * token_stride
        k = tl.load(chunk_keys + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(chunk_values + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        visible = inside[None, :] & (source[None, :] <= token[:, None])
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    passes = final + 1 - lasts
    maxima = latest + head.to(tl.int64) * blocks + base // BLOCK + row
    number = (passes + BLOCK - 1) // BLOCK
    begin = number
    for at in range(0, number, 128):
        index = at + tl.arange(0, 128)
        until = tl.load(maxima + index, mask=index < number, other=0)
        begin = tl.minimum(begin, tl.min(tl.where(until > start + first, index, number), 0))
    for at in range(begin * BLOCK, passes, BLOCK):
        index = at + tl.arange(0, BLOCK)
        inside = index < passes
        source = tl.load(passing + mine + index, mask=inside, other=0)
        expires = tl.load(chunk_expiry + mine + source, mask=inside, other=0)
        entry = source.to(tl.int64) * token_stride
        k = tl.load(chunk_keys + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(chunk_values + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        visible = (source[None, :] <= token[:, None]) & (position < expires[None, :])
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    to = out + ((base + token).to(tl.int64) * out_stride + query_head * D)[:, None] + d[None, :]
    tl.store(to, acc.to(out.dtype.element_ty), mask=real[:, None])


@triton.jit(do_not_specialize=["layer", "tokens"])
def _write(
    new_keys,
    new_values,
    token_stride,
    head_stride,
    keys,
    values,
    page_stride,
    first_blocks,
    first_stride,
    offsets,
    starts,
    slot_of_block,
    page_table,
    table_pages,
    lens,
    last_places,
    expiry,
    chunk_expiry,
    lasting,
    places,
    held_in,
    kept_in,
    layer,
    layers,
    heads,
    tokens,
    N: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    SCAN: tl.constexpr,
):
    tile, row, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    kept = tl.load(kept_in + row * heads + head)
    if (slot == 0) | ((tile > 0) & (tile * TILE >= kept)):
        return
    base = tl.load(offsets + row)
    mine = head.to(tl.int64) * tokens + base
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages
    d = tl.arange(0, D)
    rank = tile * TILE + tl.arange(0, TILE)
    inside = rank < kept
    source = tl.load(lasting + mine + rank, mask=inside, other=0)
    place = tl.load(places + mine + rank, mask=inside, other=0)
    page = tl.load(pages + place // N, mask=inside, other=0).to(tl.int64)
    from_ = ((base + source).to(tl.int64) * token_stride + head * head_stride)[:, None] + d[None, :]
    to = (page * page_stride + (place % N) * D)[:, None] + d[None, :]
    tl.store(keys + to, tl.load(new_keys + from_, mask=inside[:, None]), mask=inside[:, None])
    tl.store(values + to, tl.load(new_values + from_, mask=inside[:, None]), mask=inside[:, None])
    expires = tl.load(chunk_expiry + mine + source, mask=inside, other=0)
    tl.store(expiry + page * N + place % N, expires, mask=inside)
    if tile == 0:
        count = tl.load(offsets + row + 1) - base
        following = tl.load(starts + row).to(tl.int32) + count
        if count > 0:
            newest = tl.load(places + mine + kept - 1, mask=kept > 0, other=-1)
            lasts = tl.load(chunk_expiry + mine + count - 1) > following
            tl.store(last_places + list_, tl.where(lasts, newest, -1))
            # Gaps before the one that the newest fills are filled by others of the chunk.
            length, held = tl.load(lens + list_), tl.load(held_in + row * heads + head)
            close_gaps(
                newest + 1, length, held, following, pages, expiry, -1, 0, keys, values, page_stride, N, D, SCAN
            )


def prefill_attention(
    tables: Tables,
    pool: Pool,
    layer: int,
    chunks: Chunks,
    plan: Plan,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    scale: float,
) -> None:
    """Attention of every chunk to its list, where q < expiry, and to itself, causal and where q < expiry.

    Args:
        tables: The worker's tables.
        pool: The cache.
        layer: The layer.
        chunks: The requests.
        plan: Their plan.
        queries: (tokens, query heads, head_dim), after RoPE; tokens may be strided. head_dim is a power of two from 16
            to 256, and there are at most 64 query heads to a KV head.
        keys: (tokens, heads, head_dim), after RoPE; only head_dim must be contiguous.
        values: As keys, with the same strides.
        out: As queries; written for the tokens of the chunks.
        scale: Factor on the scores.
    """
    heads, tokens = plan.expiry.shape
    dim, group = queries.shape[-1], queries.shape[1] // heads
    short = queries.element_size() == 2
    rows = 128 if short else 64
    _attend[(triton.cdiv(chunks.longest, rows // group), heads, len(chunks.starts))](
        queries,
        queries.stride(0),
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        pool.keys,
        pool.values,
        pool.keys.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.expiry,
        plan.expiry,
        plan.lasting,
        plan.passing,
        plan.rank,
        plan.latest,
        plan.held,
        out,
        out.stride(0),
        scale * math.log2(math.e),
        layer,
        tables.page_table.shape[1],
        heads,
        tokens,
        plan.latest.shape[1],
        N=tables.page_tokens,
        D=dim,
        G=group,
        ROWS=rows,
        BLOCK=BLOCK,
        PRECISION="tf32" if short else "ieee",
        num_warps=8 if short and dim > 64 else 4,
        num_stages=(3 if dim <= 128 else 2) if short else 1,
    )


def write_survivors(
    tables: Tables, pool: Pool, layer: int, chunks: Chunks, plan: Plan, keys: Tensor, values: Tensor
) -> None:
    """Store the tokens that the next query will see: first in the places of what is gone by then, then at the end.

    If more is gone than comes, entries from the end fill the gaps.

    Args:
        tables: The worker's tables; changed.
        pool: The cache; changed.
        layer: The layer.
        chunks: The requests.
        plan: Their plan; of no use afterwards.
        keys: As in `prefill_attention`.
        values: As keys.
    """
    heads, tokens = plan.expiry.shape
    tile = 32
    _write[(triton.cdiv(chunks.longest, tile), len(chunks.starts), heads)](
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        pool.keys,
        pool.values,
        pool.keys.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.lens,
        tables.last,
        tables.expiry,
        plan.expiry,
        plan.lasting,
        plan.places,
        plan.held,
        plan.kept,
        layer,
        tables.page_table.shape[1],
        heads,
        tokens,
        N=tables.page_tokens,
        D=keys.shape[-1],
        TILE=tile,
        SCAN=256,
        num_warps=4,
    )
