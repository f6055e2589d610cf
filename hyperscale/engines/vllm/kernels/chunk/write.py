# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Stores the tokens of a chunk that outlive it, after it has attended, in the places of entries that do not."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.chunk.plan_storage import ChunkPlan
from hyperscale.engines.vllm.kernels.common import close_gaps
from hyperscale.engines.vllm.kernels.fp8 import store_entries
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches


@triton.jit(do_not_specialize=["layer", "tokens"])
def _chunk_write_kernel(
    # a layer's own
    new_keys,
    new_values,
    layer,
    # the strides of its keys and values
    token_stride,
    head_stride,
    # the cache
    keys,
    values,
    page_stride,
    # the requests
    first_blocks,
    first_stride,
    offsets,
    starts,
    # the tables
    slot_of_block,
    page_table,
    table_pages,
    lens,
    newest_places,
    expiry,
    # the plan, see `ChunkPlan`
    chunk_expiry,
    lasting,
    places,
    stored_in,
    lasting_in,
    # numbers
    layers,
    heads,
    tokens,
    N: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    SCAN: tl.constexpr,
    scales,
    FP8: tl.constexpr,
):
    # Grid (tiles of lasting tokens, requests, heads). Tile 0 runs even if nothing lasts, for the bookkeeping below.
    tile, request, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    num_lasting = tl.load(lasting_in + request * heads + head)
    if (slot == 0) | ((tile > 0) & (tile * TILE >= num_lasting)):
        return
    base = tl.load(offsets + request)
    chunk = head.to(tl.int64) * tokens + base
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages

    # Store the tile's tokens in the places that the plan gave them.
    d = tl.arange(0, D)
    rank = tile * TILE + tl.arange(0, TILE)
    inside = rank < num_lasting
    source = tl.load(lasting + chunk + rank, mask=inside, other=0)
    place = tl.load(places + chunk + rank, mask=inside, other=0)
    page = tl.load(pages + place // N, mask=inside, other=0).to(tl.int64)
    source_at = ((base + source).to(tl.int64) * token_stride + head * head_stride)[:, None] + d[None, :]
    k = tl.load(new_keys + source_at, mask=inside[:, None], other=0.0)
    v = tl.load(new_values + source_at, mask=inside[:, None], other=0.0)
    store_entries(k, v, keys, values, scales, page, place % N, inside, page_stride, D, FP8)
    expires = tl.load(chunk_expiry + chunk + source, mask=inside, other=0)
    tl.store(expiry + page * N + place % N, expires, mask=inside)

    # Once a list: where the newest token lies, and gaps that the chunk has not filled. The gaps lie behind the place of
    # the last lasting token, which other tiles do not touch, so the tiles need no order.
    if tile == 0:
        count = tl.load(offsets + request + 1) - base
        next_query = tl.load(starts + request).to(tl.int32) + count
        if count > 0:
            last_place = tl.load(places + chunk + num_lasting - 1, mask=num_lasting > 0, other=-1)
            newest_lasts = tl.load(chunk_expiry + chunk + count - 1) > next_query
            tl.store(newest_places + list_, tl.where(newest_lasts, last_place, -1))
            length, num_stored = tl.load(lens + list_), tl.load(stored_in + request * heads + head)
            if length < num_stored:  # more is gone than came
                close_gaps(
                    last_place + 1,
                    length,
                    num_stored,
                    next_query,
                    pages,
                    expiry,
                    -1,
                    0,
                    keys,
                    values,
                    scales,
                    page_stride,
                    N,
                    D,
                    SCAN,
                    FP8,
                )


def store_survivors(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    chunks: ChunkRequests,
    plan: ChunkPlan,
    keys: Tensor,
    values: Tensor,
    launches: StepLaunches | None = None,
) -> None:
    """Store the tokens that the next query will see: first in the places of what is gone by then, then at the end.

    If more is gone than comes, entries from the end fill the gaps.

    Args:
        tables: The worker's tables; changed.
        cache: The cache; changed.
        layer: The layer.
        chunks: The requests.
        plan: Their plan; of no use afterwards.
        keys: As in `chunk_attention`.
        values: As keys.
        launches: Of the step; None to launch it anew.
    """
    launches = launches or StepLaunches()
    of_layer, shared = (keys, values, layer), (tables, cache, chunks, plan)
    if launches.repeat(_chunk_write_kernel, of_layer, shared):
        return
    heads, tokens = plan.expiry.shape
    tile = 32
    launches.begin(
        _chunk_write_kernel,
        (triton.cdiv(chunks.longest, tile), len(chunks.starts), heads),
        of_layer,
        shared,
        keys.stride(0),
        keys.stride(1),
        cache.keys,
        cache.values,
        cache.keys.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.lens,
        tables.newest,
        tables.expiry,
        plan.expiry,
        plan.lasting,
        plan.places,
        plan.num_stored,
        plan.num_lasting,
        tables.page_table.shape[1],
        heads,
        tokens,
        N=tables.page_tokens,
        D=keys.shape[-1],
        TILE=tile,
        SCAN=256,
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        num_warps=4,
    )
