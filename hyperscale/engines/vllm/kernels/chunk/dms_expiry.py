# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Turns DMS's verdicts on the tokens of a chunk into expiries."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, KernelTables
from hyperscale.engines.vllm.kernels.common import NEVER


@triton.jit(do_not_specialize=["layer", "window", "tokens"])
def _chunk_dms_expiry_kernel(
    verdicts,
    verdict_stride,
    # the requests
    first_blocks,
    first_stride,
    offsets,
    starts,
    # the tables
    slot_of_block,
    page_table,
    table_pages,
    newest_places,
    expiry,
    out,
    # numbers
    layer,
    layers,
    heads,
    window,
    tokens,
    N: tl.constexpr,
    TILE: tl.constexpr,
    LATER: tl.constexpr,
):
    # Grid (tiles of tokens, requests, heads).
    tile, request, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = tl.load(offsets + request)
    count = tl.load(offsets + request + 1) - base
    if tile * TILE >= count:
        return
    start = tl.load(starts + request).to(tl.int32)
    # The verdict on a token stands LATER tokens after it; the chunk's last LATER tokens have none yet.
    index = tile * TILE + tl.arange(0, TILE)
    has_verdict = index + LATER < count
    at = (base + index + LATER).to(tl.int64) * verdict_stride + head
    verdict = tl.load(verdicts + at, mask=has_verdict, other=0)
    expires = tl.where(has_verdict & (verdict != 0), start + index + window + 1, NEVER)
    tl.store(out + head.to(tl.int64) * tokens + base + index, expires, mask=index < count)
    if LATER == 0:
        return
    # The first tile also applies the chunk's first verdict, on the token before the chunk, which is stored already.
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if (tile == 0) & (start > 0) & (slot > 0):
        evict = tl.load(verdicts + base.to(tl.int64) * verdict_stride + head) != 0
        list_ = (slot.to(tl.int64) * layers + layer) * heads + head
        newest = tl.load(newest_places + list_)
        evict = evict & (newest >= 0)
        page = tl.load(page_table + list_ * table_pages + newest // N, mask=evict, other=0).to(tl.int64)
        tl.store(expiry + page * N + newest % N, start + window, mask=evict)


def dms_expiries(
    tables: KernelTables, layer: int, chunks: ChunkRequests, verdicts: Tensor, window: int, decision_offset: int = 1
) -> Tensor:
    """DMS's rule: token k is gone from query k + w + 1 on if hidden state k + d says so (arXiv 2506.05345, section 3).

    With d = 1 the verdict on a chunk's last token comes with the next chunk; that on the token before the chunk is
    written to ``tables.expiry`` here.

    Args:
        tables: The worker's tables; expiries are lowered.
        layer: The layer.
        chunks: The requests.
        verdicts: (tokens, heads) bool, of each hidden state: on the token d before it.
        window: w.
        decision_offset: d, 0 or 1.

    Returns:
        (heads, tokens) int32; what lies outside of all chunks is undefined.
    """
    tokens, heads = verdicts.shape
    out = torch.empty(heads, tokens, dtype=torch.int32, device=verdicts.device)
    tile = 256
    _chunk_dms_expiry_kernel[(triton.cdiv(chunks.longest, tile), len(chunks.starts), heads)](
        verdicts,
        verdicts.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.newest,
        tables.expiry,
        out,
        layer,
        tables.page_table.shape[1],
        heads,
        window,
        tokens,
        N=tables.page_tokens,
        TILE=tile,
        LATER=decision_offset,
        num_warps=4,
    )
    return out
