# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""After a chunk has attended: storing what outlives it, in the places of what does not."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Chunks, Pool, Tables
from hyperscale.engines.vllm.kernels.chunk_plan import Plan
from hyperscale.engines.vllm.kernels.common import close_gaps


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
            length, held = tl.load(lens + list_), tl.load(held_in + row * heads + head)
            if length < held:  # gaps before the one that the newest fills are filled by others of the chunk
                close_gaps(
                    newest + 1, length, held, following, pages, expiry, -1, 0, keys, values, page_stride, N, D, SCAN
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
