# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Appends chunks of which nothing expires to their lists: room for all layers at once, then a layer's entries.

All lists of such a request are equally long, and a token's place is its position, so nothing has to be planned.
"""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.common import NEVER, page_of
from hyperscale.engines.vllm.kernels.fp8 import store_entries
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches

_SCAN = 256  # pages that a program hands out at once
_TILE = 32  # tokens that a program stores


@triton.jit
def _chunk_room_kernel(
    first_blocks,
    first_stride,
    offsets,
    slot_of_block,
    superblocks,
    superblocks_stride,
    num_superblocks,
    used_before,
    pages_used,
    page_table,
    table_pages,
    num_pages,
    lens,
    newest_places,
    lists,
    N: tl.constexpr,
    SCAN: tl.constexpr,
):
    # Grid (requests, lists): equally long lists take equally many pages, so each knows which are its own.
    request, number = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if slot == 0:  # a warm-up
        return
    list_ = slot.to(tl.int64) * lists + number
    length = tl.load(lens + list_) + tl.load(offsets + request + 1) - tl.load(offsets + request)
    before = tl.load(num_pages + list_)
    new_pages = tl.maximum((length + N - 1) // N - before, 0)
    used = tl.load(used_before + request)
    for begin in range(0, new_pages, SCAN):
        index = begin + tl.arange(0, SCAN)
        page = page_of(used + number * new_pages + index, slot, superblocks, superblocks_stride, num_superblocks, lists)
        tl.store(page_table + list_ * table_pages + before + index, page, mask=index < new_pages)
    tl.store(num_pages + list_, before + new_pages)
    tl.store(lens + list_, length)
    tl.store(newest_places + list_, length - 1)
    if number == 0:
        tl.store(pages_used + slot, used + lists * new_pages)


@triton.jit(do_not_specialize=["layer"])
def _chunk_append_kernel(
    # a layer's own
    new_keys,
    new_values,
    layer,
    # what the layers share
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
    layers,
    heads,
    N: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    scales,
    FP8: tl.constexpr,
):
    # Grid (tiles of tokens, requests, heads).
    tile, request, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - base
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if (slot == 0) | (tile * TILE >= count):
        return
    token, d = tile * TILE + tl.arange(0, TILE), tl.arange(0, D)
    inside = token < count
    place = tl.load(starts + request).to(tl.int32) + token
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    page = tl.load(pages + place // N, mask=inside, other=0).to(tl.int64)
    source_at = ((base + token).to(tl.int64) * token_stride + head * head_stride)[:, None] + d[None, :]
    k = tl.load(new_keys + source_at, mask=inside[:, None], other=0.0)
    v = tl.load(new_values + source_at, mask=inside[:, None], other=0.0)
    store_entries(k, v, keys, values, scales, page, place % N, inside, page_stride, D, FP8)
    tl.store(expiry + page * N + place % N, NEVER, mask=inside)


def make_room(tables: KernelTables, chunks: ChunkRequests, slots: Tensor) -> None:
    """Lengthen all lists of all layers by the chunks, and give them the pages for it; once a step.

    Args:
        tables: The worker's tables; changed.
        chunks: The requests, each once; those of block 0 are left alone.
        slots: (requests,) int64, their slots.
    """
    _, layers, heads, table_pages = tables.page_table.shape
    _chunk_room_kernel[(len(slots), layers * heads)](
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        tables.slot_of_block,
        tables.superblocks,
        tables.superblocks.stride(0),
        tables.num_superblocks,
        tables.pages_used[slots],  # a copy: one program of each request changes the number that the others read
        tables.pages_used,
        tables.page_table,
        table_pages,
        tables.num_pages,
        tables.lens,
        tables.newest,
        layers * heads,
        N=tables.page_tokens,
        SCAN=_SCAN,
        num_warps=4,
    )


def append_chunks(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    chunks: ChunkRequests,
    keys: Tensor,
    values: Tensor,
    launches: StepLaunches | None = None,
) -> None:
    """Store a layer's tokens at the places that their positions name, after `make_room`.

    Args:
        tables: The worker's tables; expiries change.
        cache: The cache; changed.
        layer: The layer.
        chunks: The requests.
        keys: (tokens, heads, head_dim), after RoPE; only head_dim must be contiguous.
        values: As keys, with the same strides.
        launches: Of the step; None to launch it anew.
    """
    launches = launches or StepLaunches()
    of_layer, shared = (keys, values, layer), (tables, cache, chunks)
    if launches.repeat(_chunk_append_kernel, of_layer, shared):
        return
    _, heads, dim = keys.shape
    launches.begin(
        _chunk_append_kernel,
        (triton.cdiv(chunks.longest, _TILE), len(chunks.starts), heads),
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
        tables.expiry,
        tables.page_table.shape[1],
        heads,
        N=tables.page_tokens,
        D=dim,
        TILE=_TILE,
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        num_warps=4,
    )
