# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""DMS's rule for the tokens of a chunk: verdicts become expiries."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Chunks, Tables


@triton.jit(do_not_specialize=["layer", "window", "tokens"])
def _delayed(
    verdicts,
    verdict_stride,
    first_blocks,
    first_stride,
    offsets,
    starts,
    slot_of_block,
    page_table,
    table_pages,
    last_places,
    expiry,
    out,
    layer,
    layers,
    heads,
    window,
    tokens,
    N: tl.constexpr,
    TILE: tl.constexpr,
):
    tile, row, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = tl.load(offsets + row)
    count = tl.load(offsets + row + 1) - base
    if tile * TILE >= count:
        return
    start = tl.load(starts + row).to(tl.int32)
    index = tile * TILE + tl.arange(0, TILE)
    told = index + 1 < count
    verdict = tl.load(verdicts + (base + index + 1).to(tl.int64) * verdict_stride + head, mask=told, other=0)
    expires = tl.where(told & (verdict != 0), start + index + window + 1, 2147483647)
    tl.store(out + head.to(tl.int64) * tokens + base + index, expires, mask=index < count)
    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    if (tile == 0) & (start > 0) & (slot > 0):
        evict = tl.load(verdicts + base.to(tl.int64) * verdict_stride + head) != 0
        list_ = (slot.to(tl.int64) * layers + layer) * heads + head
        last = tl.load(last_places + list_)
        evict = evict & (last >= 0)
        page = tl.load(page_table + list_ * table_pages + last // N, mask=evict, other=0).to(tl.int64)
        tl.store(expiry + page * N + last % N, start + window, mask=evict)


def delayed_expiries(tables: Tables, layer: int, chunks: Chunks, verdicts: Tensor, window: int) -> Tensor:
    """DMS's rule: token k is gone from query k + w + 1 on if hidden state k + 1 says so (arXiv 2506.05345, section 3).

    The verdict on a chunk's last token comes with the next chunk; that on the token before the chunk is written to
    ``tables.expiry`` here.

    Args:
        tables: The worker's tables; expiries are lowered.
        layer: The layer.
        chunks: The requests.
        verdicts: (tokens, heads) bool, on the token *before* each.
        window: w.

    Returns:
        (heads, tokens) int32; what lies outside of all chunks is undefined.
    """
    tokens, heads = verdicts.shape
    out = torch.empty(heads, tokens, dtype=torch.int32, device=verdicts.device)
    tile = 256
    _delayed[(triton.cdiv(chunks.longest, tile), len(chunks.starts), heads)](
        verdicts,
        verdicts.stride(0),
        chunks.first_blocks,
        chunks.first_blocks.stride(0),
        chunks.offsets,
        chunks.starts,
        tables.slot_of_block,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.last,
        tables.expiry,
        out,
        layer,
        tables.page_table.shape[1],
        heads,
        window,
        tokens,
        N=tables.page_tokens,
        TILE=tile,
        num_warps=4,
    )
    return out
