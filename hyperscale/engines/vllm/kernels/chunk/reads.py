# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Counts the entries that each query of a chunk reads: costs of decode steps in it, and of prompts evicted from."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables
from hyperscale.engines.vllm.kernels.chunk.plan import ChunkPlan
from hyperscale.engines.vllm.kernels.common import load_expiries


@triton.jit(do_not_specialize=["layer", "tokens"])
def _chunk_reads_kernel(
    # what the method says
    chunk_expiry,
    # the requests
    first_blocks,
    first_stride,
    offsets,
    starts,
    count_from,
    # the tables
    slot_of_block,
    page_table,
    table_pages,
    expiry,
    stored_in,
    out,
    out_stride,
    # numbers
    layer,
    layers,
    heads,
    tokens,
    N: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Grid (tiles of queries, requests, heads).
    tile, request, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - base
    start = tl.load(starts + request).to(tl.int32)
    end = tl.minimum(tile * TILE + TILE, count)
    if (tile * TILE >= count) | (start + end <= tl.load(count_from + request)):
        return
    token = tile * TILE + tl.arange(0, TILE)
    query = (start + token)[:, None]
    reads = tl.zeros((TILE,), tl.int32)
    # Stored entries that have not expired.
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    num_stored = tl.load(stored_in + request * heads + head)
    for begin in range(0, num_stored, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        expires = load_expiries(index, num_stored, pages, expiry, -1, 0, N)
        reads += tl.sum(((index < num_stored) & (expires > query)).to(tl.int32), 1)
    # Tokens of the chunk, up to the query's own.
    chunk = head.to(tl.int64) * tokens + base
    for begin in range(0, end, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        expires = tl.load(chunk_expiry + chunk + index, mask=index < end, other=0)
        reads += tl.sum(((index[None, :] <= token[:, None]) & (expires[None, :] > query)).to(tl.int32), 1)
    # Heads may share the numbers, and so may layers, whose kernels run one after another.
    tl.atomic_add(out + head * out_stride + base + token, reads.to(tl.int64), mask=token < count)


def add_reads(
    tables: KernelTables, layer: int, chunks: ChunkRequests, plan: ChunkPlan, count_from: Tensor, reads: Tensor
) -> None:
    """Add up how many entries each query reads; to be called between `plan_chunks` and `store_survivors`.

    Args:
        tables: The worker's tables.
        layer: The layer.
        chunks: The requests.
        plan: Their plan.
        count_from: (requests,) int32, the first position whose reads are wanted; nothing is sure of earlier ones.
        reads: (heads, tokens) int64, what they are added to; heads may be the same numbers (stride 0).
    """
    heads, tokens = plan.expiry.shape
    tile = 64
    _chunk_reads_kernel[(triton.cdiv(chunks.longest, tile), len(chunks.starts), heads)](
        plan.expiry,
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        count_from,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.expiry,
        plan.num_stored,
        reads,
        reads.stride(0),
        layer,
        tables.page_table.shape[1],
        heads,
        tokens,
        N=tables.page_tokens,
        TILE=tile,
        BLOCK=128,
        num_warps=4,
    )
