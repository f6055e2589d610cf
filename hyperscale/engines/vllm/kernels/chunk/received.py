# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Adds up the attention that each key of a prompt receives from the queries of a chunk, for H2O.

The chunk has attended, and left the logarithm of each query's sum of exponentials: so weights are known one by one, and
a program adds those of its keys over all queries, in order. It is the product of queries and keys once more, but no
softmax, no values, and nothing in memory but a number a key.
"""

import math
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor, float32

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.fp8 import load_keys


@dataclass(frozen=True)
class LogSums:
    """Logarithms of queries' sums of exponentials, natural, as the attention has left them.

    Attributes:
        values: Float32.
        token_stride: From one token of the chunks to the next; the first of them is at the beginning.
        head_stride: From one KV head to the next.
        group_stride: From one query head of a KV head to the next.
    """

    values: Tensor
    token_stride: int
    head_stride: int
    group_stride: int


@triton.jit(do_not_specialize=["layer", "base"])
def _chunk_received_kernel(
    queries,
    query_stride,
    keys,
    page_stride,
    first_blocks,
    first_stride,
    offsets,
    starts,
    slot_of_block,
    page_table,
    table_pages,
    log_sums,
    token_stride,
    head_stride,
    group_stride,
    addresses,
    prompts,
    prompt_stride,
    scale,
    base,
    layer,
    layers,
    heads,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
    scales,
    FP8: tl.constexpr,
):
    TILE: tl.constexpr = ROWS // G  # tokens
    # Grid (tiles of keys, heads, requests): a program adds up what its BLOCK keys receive.
    request, head = tl.program_id(2), tl.program_id(1)
    first = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - first
    start = tl.load(starts + request).to(tl.int32)
    begin = tl.program_id(0) * BLOCK
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if (slot == 0) | (count == 1) | (begin >= start + count):
        return
    key, d = begin + tl.arange(0, BLOCK), tl.arange(0, D)
    inside = key < start + count
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    page = tl.load(pages + key // N, mask=inside, other=0).to(tl.int64)
    k = load_keys(keys, scales, page, key % N, inside, page_stride, D, queries.dtype.element_ty, FP8)
    lane = tl.arange(0, ROWS)
    received = tl.zeros((BLOCK,), tl.float32)
    # Queries before the first of the keys see none of them.
    for tile in range(tl.maximum(begin - start, 0) // TILE, (count + TILE - 1) // TILE):
        token = tile * TILE + lane // G
        real = (lane < TILE * G) & (token < count)
        at = (first + token).to(tl.int64)
        query_at = at * query_stride + (head * G + lane % G) * D
        q = tl.load(queries + query_at[:, None] + d[None, :], mask=real[:, None], other=0.0)
        sums_at = (at - base) * token_stride + head * head_stride + (lane % G) * group_stride
        log_sum = tl.load(log_sums + sums_at, mask=real, other=0.0) * 1.4426950408889634
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        seen = real[:, None] & inside[None, :] & (key[None, :] <= (start + token)[:, None])
        received += tl.sum(tl.where(seen, tl.exp2(scores - log_sum[:, None]), 0.0), 0)
    length = tl.load(prompts + slot * prompt_stride)
    total = tl.load(addresses + slot).to(tl.pointer_type(tl.float32)) + (layer * heads + head) * length + key
    stored = inside & (key < length)
    tl.store(total, tl.load(total, mask=stored, other=0.0) + received, mask=stored)


def add_received(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    chunks: ChunkRequests,
    queries: Tensor,
    log_sums: LogSums,
    addresses: Tensor,
    prompts: Tensor,
    base: int,
    longest: int,
    scale: float,
) -> None:
    """Add the attention of chunks of dense prompts, which are stored, to what the prompts' keys have received.

    Args:
        tables: The worker's tables.
        cache: The cache.
        layer: The layer.
        chunks: The requests; their lists are in order of position. Those of one token are left out.
        queries: (tokens, query heads, head_dim) of the whole batch, after RoPE; tokens may be strided.
        log_sums: Of the chunks' queries.
        addresses: (slots,) int64, where each request's sums are: (layers, heads, P) float32, contiguous; changed.
        prompts: (slots,) int64, P of each; may be strided.
        base: The chunks' first token in the batch.
        longest: At least the tokens of the longest request.
        scale: Factor on the scores.
    """
    _, layers, heads, table_pages = tables.page_table.shape
    dim, group = queries.shape[-1], queries.shape[1] // heads
    exact = queries.dtype == float32  # unrolled scalar code: larger tiles take minutes to compile
    rows, block = max(32 if exact else 128, triton.next_power_of_2(group)), 32 if exact else 64
    _chunk_received_kernel[(triton.cdiv(longest, block), heads, len(chunks.starts))](
        queries,
        queries.stride(0),
        cache.keys,
        cache.keys.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        table_pages,
        log_sums.values,
        log_sums.token_stride,
        log_sums.head_stride,
        log_sums.group_stride,
        addresses,
        prompts,
        prompts.stride(0),
        scale * math.log2(math.e),
        base,
        layer,
        layers,
        heads,
        N=tables.page_tokens,
        D=dim,
        G=group,
        ROWS=rows,
        BLOCK=block,
        PRECISION="ieee" if exact else "tf32",
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        num_warps=4 if exact else 8,
        num_stages=1 if exact else 3,
    )
