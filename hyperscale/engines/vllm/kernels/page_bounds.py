# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Bounds q·k of each page of each list in a decode step, for Quest's rule, and appends the step's entries.

It is what the state of `hyperscale.methods.quest` does, on what is kept by slot: every page gets its bound on q·k, and
the new key is taken into the bounds of the page being filled. Beside that the kernel appends the new entries to the
lists, as `decode_update` would in a kernel of its own. `page_choice` goes on from the bounds.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import DecodeRequests, KernelTables, PagedCache
from hyperscale.engines.vllm.kernels.common import NEVER
from hyperscale.engines.vllm.kernels.decode_update import SCAN, store_entry

BLOCK = 64  # pages whose bounds a program looks at
_ALIGNED = 16  # a row of bounds is a multiple of it, so that it is read in wide pieces


@dataclass(frozen=True)
class KeyBounds:
    """Bounds of the keys of the pages of one layer, by slot; changed.

    Attributes:
        size: Entries of a page.
        least: (slots, heads, pages, head_dim), contiguous, the least number that the page's keys have in a dimension.
        greatest: Likewise.
    """

    size: int
    least: Tensor
    greatest: Tensor


@dataclass(frozen=True)
class PageStep:
    """What is the same in all layers of a step; (requests,) int64 each.

    Attributes:
        budgets: How many pages a query head reads.
        in_prompt: 1 where the token is still the prompt's, which reads everything; 0 elsewhere.
    """

    budgets: Tensor
    in_prompt: Tensor


@triton.jit(do_not_specialize=["layer"])
def _page_bounds_kernel(
    queries,
    query_stride,
    new_keys,
    new_values,
    token_stride,
    head_stride,
    first_blocks,
    first_stride,
    positions,
    in_prompt,
    slot_of_block,
    least,
    greatest,
    pages,
    bounds,
    bounds_stride,
    # for the new entries, as in `decode_update`
    superblocks,
    superblocks_stride,
    num_superblocks,
    pages_used,
    page_table,
    table_pages,
    num_pages,
    lens,
    newest_places,
    expiry,
    keys,
    values,
    scales,
    page_stride,
    lens_out,
    lens_out_stride,
    block_table,
    block_stride,
    layer,
    layers,
    heads,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    SCAN: tl.constexpr,
    FP8: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # Grid (1 + blocks of pages, lists): the first program of a list appends its new entry, every other one works on
    # BLOCK of its pages. None of them reads what another one writes.
    part, list_ = tl.program_id(0), tl.program_id(1)
    request, head = list_ // heads, list_ % heads
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride)).to(tl.int64)
    length_out = lens_out + request.to(tl.int64) * lens_out_stride + head
    if slot == 0:  # padding
        tl.store(length_out, 0, mask=part == 0)
        return
    if part == 0:
        stored_list = (slot * layers + layer) * heads + head
        num_stored = tl.load(lens + stored_list)
        store_entry(
            new_keys,
            new_values,
            request.to(tl.int64) * token_stride + head * head_stride,
            num_stored,
            num_stored + 1,
            num_stored * 0 + NEVER,
            slot,
            stored_list,
            superblocks,
            superblocks_stride,
            num_superblocks,
            layers * heads,
            pages_used,
            page_table + stored_list * table_pages,
            num_pages,
            lens,
            newest_places,
            expiry,
            keys,
            values,
            scales,
            page_stride,
            length_out,
            block_table + list_.to(tl.int64) * block_stride,
            N,
            D,
            SCAN,
            FP8,
        )
        return
    begin = (part - 1) * BLOCK
    position = tl.load(positions + request).to(tl.int32)
    current = position // SIZE  # the page being filled
    if (begin > current) | (tl.load(in_prompt + request) != 0):
        return
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    page = begin + tl.arange(0, BLOCK)
    is_full = page < current
    query_at = request.to(tl.int64) * query_stride + (head * G + g[:, None]) * D + d[None, :]
    q = tl.load(queries + query_at, mask=(g < G)[:, None], other=0.0)
    table = (slot * heads + head) * pages
    at = (table + page[:, None]) * D + d[None, :]
    low = tl.load(least + at, mask=is_full[:, None], other=0.0)
    high = tl.load(greatest + at, mask=is_full[:, None], other=0.0)
    # The greatest product that a key within the bounds could have: each dimension takes the bound of the query's sign.
    zero = tl.zeros_like(q)
    bound = tl.dot(tl.where(q > 0, q, zero), tl.trans(high), input_precision=PRECISION)
    bound = tl.dot(tl.where(q > 0, zero, q), tl.trans(low), bound, input_precision=PRECISION)
    out = (list_.to(tl.int64) * G + g)[:, None] * bounds_stride + page[None, :]
    tl.store(bounds + out, bound, mask=(g < G)[:, None] & is_full[None, :])

    # The new key; no query looks at the bounds of the page that it goes to.
    if begin + BLOCK > current:
        key = tl.load(new_keys + request.to(tl.int64) * token_stride + head * head_stride + d)
        own = (table + current) * D + d
        if position % SIZE != 0:  # else the page begins, and what the tables hold for it does not count
            tl.store(least + own, tl.minimum(tl.load(least + own), key))
            tl.store(greatest + own, tl.maximum(tl.load(greatest + own), key))
        else:
            tl.store(least + own, key)
            tl.store(greatest + own, key)


def append_and_bound(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    requests: DecodeRequests,
    step: PageStep,
    kept: KeyBounds,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    lens_out: Tensor,
    block_table: Tensor,
) -> Tensor:
    """Append a token to every list of a layer, and bound q·k of each query head and full page of its list.

    Args:
        tables: The worker's tables; changed.
        cache: The cache; changed.
        layer: The layer.
        requests: The requests, each once; those of block 0 are left alone.
        step: What the step says of them.
        kept: Bounds of the layer's pages; the new keys are taken in.
        queries: (requests, heads, group, head_dim), after RoPE; requests may be strided, the rest is contiguous.
        keys: (requests, heads, head_dim), after RoPE; head_dim contiguous.
        values: As keys, with the same strides.
        lens_out: (requests, heads) int32, rows may be strided; written: entries of each list.
        block_table: (requests, heads, pages) int32, contiguous; written as far as a list has entries: its pages.

    Returns:
        (requests, heads, group, at least the pages) float32; of no meaning for pages that are not full, and where the
        token is still the prompt's.
    """
    count, heads, group, dim = queries.shape
    pages = kept.least.shape[2]
    stride = triton.cdiv(pages, _ALIGNED) * _ALIGNED
    bounds = torch.empty(count, heads, group, stride, dtype=torch.float32, device=queries.device)
    if not count:
        return bounds
    _page_bounds_kernel[(1 + triton.cdiv(pages, BLOCK), count * heads)](
        queries,
        queries.stride(0),
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        requests.first_blocks,
        requests.first_blocks.stride(0),
        requests.positions,
        step.in_prompt,
        tables.slot_of_block,
        kept.least,
        kept.greatest,
        pages,
        bounds,
        stride,
        tables.superblocks,
        tables.superblocks.stride(0),
        tables.num_superblocks,
        tables.pages_used,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.num_pages,
        tables.lens,
        tables.newest,
        tables.expiry,
        cache.keys,
        cache.values,
        cache.keys if cache.scales is None else cache.scales,
        cache.keys.stride(0),
        lens_out,
        lens_out.stride(0),
        block_table,
        block_table.shape[-1],
        layer,
        tables.page_table.shape[1],
        heads,
        N=tables.page_tokens,
        D=dim,
        G=group,
        ROWS=max(triton.next_power_of_2(group), 16),  # the least that tl.dot takes
        SIZE=kept.size,
        BLOCK=BLOCK,
        SCAN=SCAN,
        FP8=cache.scales is not None,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        num_warps=4,
    )
    return bounds
