# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Attention of chunks to what is stored and to themselves, honouring expiries.

A tile of queries reads three kinds of keys: the list's entries (masked by expiry), the chunk's tokens that outlive it
(masked by order alone) and those that do not. The latter are visible for a short while only, so of them a tile reads
the blocks from the first that has not wholly expired to the last that is not wholly in its future. At a compression of
CR the work on a chunk of n tokens is therefore about n^2 / (2 CR) + n w and not n^2 / 2.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.chunk.plan_storage import LATEST, ChunkPlan
from hyperscale.engines.vllm.kernels.common import softmax_block
from hyperscale.engines.vllm.kernels.fp8 import load_entries
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches


class ChunkLaunch(NamedTuple):
    """How a launch of the attention kernel is cut.

    Attributes:
        rows: Queries of a program: tokens times the query heads of a KV head; lanes are idle if that is no divisor.
        block: Keys of a step of its loops; divides `LATEST`.
        warps: Of a program.
        stages: Of the loops' software pipeline.
    """

    rows: int
    block: int
    warps: int
    stages: int

    @classmethod
    def of(cls, dtype: torch.dtype, dim: int) -> "ChunkLaunch":
        """The usual one. Products in float32 are unrolled scalar code: larger tiles take minutes to compile.

        Loops are short, as most keys are skipped, and each of their steps waits for keys that are loaded by index. So
        tiles are small enough for several programs to share a multiprocessor (`benchmarks/vllm_chunk_cuts.py`).
        """
        if dtype == torch.float32:
            return cls(32, 32 if dim <= 128 else 16, 4, 1)
        return cls(128, 32, 4, 4) if dim <= 128 else cls(128, 32, 8, 5)


@triton.jit(do_not_specialize=["layer", "tokens", "blocks"])
def _chunk_attention_kernel(
    # a layer's own
    queries,
    new_keys,
    new_values,
    out,
    log_sums,
    layer,
    scale,
    # their strides
    query_stride,
    token_stride,
    head_stride,
    out_stride,
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
    expiry,
    # the plan, see `ChunkPlan`
    chunk_expiry,
    lasting,
    passing,
    ranks,
    latest,
    stored_in,
    # numbers
    layers,
    heads,
    tokens,
    blocks,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LATEST: tl.constexpr,
    PRECISION: tl.constexpr,
    scales,
    FP8: tl.constexpr,
    HAS_LOG_SUMS: tl.constexpr,
):
    TILE: tl.constexpr = ROWS // G  # tokens
    # Grid (tiles of tokens, heads, requests): a program attends with TILE tokens' G queries each.
    request, head = tl.program_id(2), tl.program_id(1)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the last tiles have most to do, so they start first
    base = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - base
    first = tile * TILE
    if first >= count:
        return
    start = tl.load(starts + request).to(tl.int32)
    final = tl.minimum(first + TILE, count) - 1
    # Lane = query: token by token, the G query heads of each; lanes past TILE * G are idle.
    lane, d = tl.arange(0, ROWS), tl.arange(0, D)
    token = first + lane // G
    real = (lane < TILE * G) & (token < count)
    query_head = head * G + lane % G
    query_at = (base + token).to(tl.int64) * query_stride + query_head * D
    q = tl.load(queries + query_at[:, None] + d[None, :], mask=real[:, None], other=0.0)
    position = (start + token)[:, None]

    high = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)

    # 1. The list's entries, all of which are older than the chunk: masked by expiry.
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    pages = page_table + ((slot.to(tl.int64) * layers + layer) * heads + head) * table_pages
    num_stored = tl.load(stored_in + request * heads + head)
    for begin in range(0, num_stored, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < num_stored
        page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
        expires = tl.load(expiry + page * N + index % N, mask=inside, other=0)
        k, v = load_entries(keys, values, scales, page, index % N, inside, page_stride, D, q.dtype, FP8)
        visible = position < expires[None, :]
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    # 2. Tokens of the chunk that outlive it, up to the tile's last: no query of the chunk finds them expired, so they
    # are masked by order alone.
    chunk = head.to(tl.int64) * tokens + base
    chunk_keys = new_keys + base.to(tl.int64) * token_stride + head * head_stride
    chunk_values = new_values + base.to(tl.int64) * token_stride + head * head_stride
    num_lasting = tl.load(ranks + chunk + final)
    for begin in range(0, num_lasting, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < num_lasting
        source = tl.load(lasting + chunk + index, mask=inside, other=0)
        entry = source.to(tl.int64) * token_stride
        k = tl.load(chunk_keys + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(chunk_values + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        visible = inside[None, :] & (source[None, :] <= token[:, None])
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    # 3. Tokens of the chunk that do not outlive it, up to the tile's last: masked by order and expiry. Blocks in front
    # that have expired for all of the tile's queries are skipped: the first block to read is the first whose latest
    # expiry is past the tile's first position.
    num_passing = final + 1 - num_lasting
    maxima = latest + (layer.to(tl.int64) * heads + head) * blocks + base // LATEST + request
    num_blocks = (num_passing + LATEST - 1) // LATEST
    first_block = num_blocks
    for begin in range(0, num_blocks, 128):
        index = begin + tl.arange(0, 128)
        until = tl.load(maxima + index, mask=index < num_blocks, other=0)
        first_block = tl.minimum(first_block, tl.min(tl.where(until > start + first, index, num_blocks), 0))
    for begin in range(first_block * LATEST, num_passing, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < num_passing
        source = tl.load(passing + chunk + index, mask=inside, other=0)
        expires = tl.load(chunk_expiry + chunk + source, mask=inside, other=0)
        entry = source.to(tl.int64) * token_stride
        k = tl.load(chunk_keys + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(chunk_values + entry[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        visible = (source[None, :] <= token[:, None]) & (position < expires[None, :])
        high, total, acc = softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION)

    if HAS_LOG_SUMS:
        log_sum = (high + tl.log2(total)) * 0.6931471805599453  # from base 2 to base e
        tl.store(log_sums + (base + token).to(tl.int64) * heads * G + query_head, log_sum, mask=real)
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]  # idle lanes have summed nothing
    out_at = ((base + token).to(tl.int64) * out_stride + query_head * D)[:, None] + d[None, :]
    tl.store(out + out_at, acc.to(out.dtype.element_ty), mask=real[:, None])


def chunk_attention(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    chunks: ChunkRequests,
    plan: ChunkPlan,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    scale: float,
    launch: ChunkLaunch | None = None,
    log_sums: Tensor | None = None,
    launches: StepLaunches | None = None,
) -> None:
    """Attention of every chunk to its list, where q < expiry, and to itself, causal and where q < expiry.

    Args:
        tables: The worker's tables.
        cache: The cache.
        layer: The layer.
        chunks: The requests.
        plan: Their plan.
        queries: (tokens, query heads, head_dim), after RoPE; tokens may be strided. head_dim is a power of two from 16
            to 256.
        keys: (tokens, heads, head_dim), after RoPE; only head_dim must be contiguous.
        values: As keys, with the same strides.
        out: As queries; written for the tokens of the chunks.
        scale: Factor on the scores.
        launch: How the launch is cut; None for the usual one.
        log_sums: (tokens, query heads) float32, contiguous; written for the tokens of the chunks: the logarithm of each
            query's sum of exponentials. None if nobody asks.
        launches: Of the step; None to launch it anew.
    """
    launches = launches or StepLaunches()
    base_2 = scale * math.log2(math.e)
    of_layer = (queries, keys, values, out, out if log_sums is None else log_sums, layer, base_2)
    shared = (tables, cache, chunks, plan)
    if launches.repeat(_chunk_attention_kernel, of_layer, shared):
        return
    heads, tokens = plan.expiry.shape
    # A program handles all query heads of a KV head, so that each key is loaded once for them.
    dim, group = queries.shape[-1], queries.shape[1] // heads
    launch = launch or ChunkLaunch.of(queries.dtype, dim)
    rows = max(launch.rows, triton.next_power_of_2(group))
    launches.begin(
        _chunk_attention_kernel,
        (triton.cdiv(chunks.longest, rows // group), heads, len(chunks.starts)),
        of_layer,
        shared,
        queries.stride(0),
        keys.stride(0),
        keys.stride(1),
        out.stride(0),
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
        plan.expiry,
        plan.lasting,
        plan.passing,
        plan.rank,
        plan.latest,
        plan.num_stored,
        tables.page_table.shape[1],
        heads,
        tokens,
        plan.latest.shape[2],
        N=tables.page_tokens,
        D=dim,
        G=group,
        ROWS=rows,
        BLOCK=launch.block,
        LATEST=LATEST,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        HAS_LOG_SUMS=log_sums is not None,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
