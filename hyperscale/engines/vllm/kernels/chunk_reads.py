# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""How many entries the queries of a chunk see, for whoever keeps account."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Chunks, Tables
from hyperscale.engines.vllm.kernels.chunk_plan import Plan
from hyperscale.engines.vllm.kernels.common import expiries


@triton.jit(do_not_specialize=["layer", "tokens"])
def _seen(
    chunk_expiry,
    first_blocks,
    first_stride,
    offsets,
    starts,
    since,
    slot_of_block,
    page_table,
    table_pages,
    expiry,
    held_in,
    out,
    layer,
    layers,
    heads,
    tokens,
    N: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tile, row, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = tl.load(offsets + row)
    count = tl.load(offsets + row + 1) - base
    start = tl.load(starts + row).to(tl.int32)
    end = tl.minimum(tile * TILE + TILE, count)
    if (tile * TILE >= count) | (start + end <= tl.load(since + row)):
        return
    token = tile * TILE + tl.arange(0, TILE)
    query = (start + token)[:, None]
    number = tl.zeros((TILE,), tl.int32)
    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    held = tl.load(held_in + row * heads + head)
    for at in range(0, held, BLOCK):
        index = at + tl.arange(0, BLOCK)
        expires = expiries(index, held, pages, expiry, -1, 0, N)
        number += tl.sum(((index < held) & (expires > query)).to(tl.int32), 1)
    mine = head.to(tl.int64) * tokens + base
    for at in range(0, end, BLOCK):
        index = at + tl.arange(0, BLOCK)
        expires = tl.load(chunk_expiry + mine + index, mask=index < end, other=0)
        number += tl.sum(((index[None, :] <= token[:, None]) & (expires[None, :] > query)).to(tl.int32), 1)
    tl.store(out + mine + token, number, mask=token < count)


def seen(tables: Tables, layer: int, chunks: Chunks, plan: Plan, since: Tensor) -> Tensor:
    """How many entries each query sees; to be asked between `plan_chunks` and `write_survivors`.

    Args:
        tables: The worker's tables.
        layer: The layer.
        chunks: The requests.
        plan: Their plan.
        since: (requests,) int32, the first position that anybody wants to know of; nothing is done for earlier ones.

    Returns:
        (heads, tokens) int32, right from ``since`` on, elsewhere undefined.
    """
    heads, tokens = plan.expiry.shape
    out = plan.expiry.new_zeros(heads, tokens)
    tile = 64
    _seen[(triton.cdiv(chunks.longest, tile), len(chunks.starts), heads)](
        plan.expiry,
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        since,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.expiry,
        plan.held,
        out,
        layer,
        tables.page_table.shape[1],
        heads,
        tokens,
        N=tables.page_tokens,
        TILE=tile,
        BLOCK=128,
        num_warps=4,
    )
    return out
