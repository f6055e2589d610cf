# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201, ANN202
"""Updates a layer's lists in a decode step before it attends, in one kernel: evict, write, allocate, count."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import DecodeRequests, KernelTables, PagedCache, Victims
from hyperscale.engines.vllm.kernels.common import NEVER, close_gaps, load_expiries, page_of
from hyperscale.engines.vllm.kernels.fp8 import quantise

SCAN = 2048  # entries whose expiries a program loads at once


@triton.jit
def store_entry(
    new_keys,
    new_values,
    source,
    target,
    length,
    expires,
    slot,
    list_,
    superblocks,
    superblocks_stride,
    num_superblocks,
    num_lists,
    pages_used,
    pages,
    num_pages,
    lens,
    newest_places,
    expiry,
    keys,
    values,
    scales,
    page_stride,
    lens_out,
    pages_out,
    N: tl.constexpr,
    D: tl.constexpr,
    SCAN: tl.constexpr,
    FP8: tl.constexpr,
):
    """Write an entry to the place ``target`` of a list, which then has ``length``, and what attention has to know.

    The entry lies ``source`` numbers behind ``new_keys`` and ``new_values``; ``pages`` points at the list's row of the
    page table, ``lens_out`` and ``pages_out`` at where attention looks for its length and pages.
    """
    # Allocate a page where the list ends with a full one. Programs of the request's other heads, which run at the same
    # time, draw from the same counter.
    page_index = target // N
    pages_before = tl.load(num_pages + list_)
    if page_index >= pages_before:
        virtual = tl.atomic_add(pages_used + slot, 1)
        page = page_of(virtual, slot, superblocks, superblocks_stride, num_superblocks, num_lists)
        tl.store(pages + page_index, page)
        tl.store(num_pages + list_, pages_before + 1)
    else:
        page = tl.load(pages + page_index)

    # Write the entry, its expiry, and the list's new length.
    d = tl.arange(0, D)
    if FP8:
        k, key_scale = quantise(tl.load(new_keys + source + d)[None, :])
        v, value_scale = quantise(tl.load(new_values + source + d)[None, :])
        target_at = page.to(tl.int64) * page_stride + (target % N) * D + d[None, :]
        tl.store(keys + target_at, k)
        tl.store(values + target_at, v)
        scale_at = page.to(tl.int64) * (page_stride // 4) + target % N + tl.arange(0, 1)
        tl.store(scales + scale_at, key_scale | (value_scale << 16))
    else:
        target_at = page.to(tl.int64) * page_stride + (target % N) * D + d
        tl.store(keys + target_at, tl.load(new_keys + source + d))
        tl.store(values + target_at, tl.load(new_values + source + d))
    tl.store(expiry + page.to(tl.int64) * N + target % N, expires)
    tl.store(lens + list_, length)
    tl.store(newest_places + list_, target)

    # Copy length and pages to where attention reads them, in the order of the batch. The page that may just have been
    # stored to the table is taken from the register: the store need not be visible to all threads yet.
    tl.store(lens_out, length)
    length_pages = (length + N - 1) // N
    for begin in range(0, length_pages, SCAN // N):
        index = begin + tl.arange(0, SCAN // N)
        table_page = tl.load(pages + index, mask=index < length_pages, other=0)
        tl.store(pages_out + index, tl.where(index == page_index, page, table_page), mask=index < length_pages)


@triton.jit(do_not_specialize=["layer", "window"])
def _decode_update_kernel(
    # the step's keys and values
    new_keys,
    new_values,
    token_stride,
    head_stride,
    # what the method says
    verdicts,
    verdict_stride,
    verdict_head_stride,
    new_expiry,
    targets,
    target_stride,
    target_head_stride,
    victims,
    limits,
    # the requests
    first_blocks,
    first_stride,
    positions,
    # the tables
    slot_of_block,
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
    # the cache
    keys,
    values,
    page_stride,
    # for attention: lengths and pages in the order of the batch
    lens_out,
    lens_out_stride,
    block_table,
    block_stride,
    # numbers
    layer,
    layers,
    heads,
    slots,
    window,
    N: tl.constexpr,
    D: tl.constexpr,
    SCAN: tl.constexpr,
    HAS_VERDICTS: tl.constexpr,
    HAS_NEW_EXPIRY: tl.constexpr,
    ON_NEW: tl.constexpr,
    scales,
    FP8: tl.constexpr,
    PLACES: tl.constexpr,
):
    # Grid (requests, heads): a program owns one list, so all but the bump of ``pages_used`` needs no atomics.
    request, head = tl.program_id(0), tl.program_id(1)
    out = request.to(tl.int64) * lens_out_stride + head
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride))
    if slot == 0:  # padding: an empty list, whose attention gives zeros
        tl.store(lens_out + out, 0)
        return
    query = tl.load(positions + request).to(tl.int32)
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages
    num_stored = tl.load(lens + list_)
    newest = tl.load(newest_places + list_)
    verdict_expiry = query * 0 + NEVER
    if HAS_VERDICTS and not ON_NEW:  # on the token before; it stays while the query is at most ``window`` past it
        evict = (tl.load(verdicts + request * verdict_stride + head * verdict_head_stride) > 0) & (num_stored > 0)
        verdict_expiry = tl.where(evict, query + window, verdict_expiry)

    # Evict: count what has expired; the new entry goes to the first such place, or else to the end. A method that names
    # the place itself evicts what lies there, and nothing expires.
    num_expired = num_stored * 0
    target = num_stored
    if PLACES == "targets":
        named = tl.load(targets + request.to(tl.int64) * target_stride + head * target_head_stride)
        target = tl.minimum(named, num_stored).to(tl.int32)
        num_expired += (target < num_stored).to(tl.int32)
    elif PLACES == "victims":
        victim = tl.load(victims + (layer * slots + slot).to(tl.int64) * heads + head).to(tl.int32)
        is_full = num_stored >= tl.load(limits + request)
        target = tl.where(is_full, tl.minimum(victim, num_stored), num_stored)
        num_expired += (target < num_stored).to(tl.int32)
    elif PLACES == "expired":
        for begin in range(0, num_stored, SCAN):
            index = begin + tl.arange(0, SCAN)
            expires = load_expiries(index, num_stored, pages, expiry, newest, verdict_expiry, N)
            is_expired = (index < num_stored) & (expires <= query)
            num_expired += tl.sum(is_expired.to(tl.int32), 0)
            target = tl.minimum(target, tl.min(tl.where(is_expired, index, num_stored), 0))
    length = num_stored - num_expired + 1
    if num_expired > 1:  # more has gone than comes: the other gaps are filled from the end
        close_gaps(
            target + 1,
            length,
            num_stored,
            query,
            pages,
            expiry,
            newest,
            verdict_expiry,
            keys,
            values,
            scales,
            page_stride,
            N,
            D,
            SCAN,
            FP8,
        )
    # Write the verdict to memory, unless its entry is the one that is overwritten below.
    if HAS_VERDICTS and not ON_NEW:
        stays = evict & (newest >= 0) & (newest != target)
        newest_page = tl.load(pages + newest // N, mask=stays, other=0).to(tl.int64)
        tl.store(expiry + newest_page * N + newest % N, verdict_expiry, mask=stays)

    if HAS_NEW_EXPIRY:
        expires = tl.load(new_expiry + request).to(tl.int32)
    elif HAS_VERDICTS and ON_NEW:  # the verdict on this very token, which no query up to here has passed
        evict_new = tl.load(verdicts + request * verdict_stride + head * verdict_head_stride) > 0
        expires = tl.where(evict_new, query + window + 1, NEVER)
    else:
        expires = verdict_expiry * 0 + NEVER
    store_entry(
        new_keys,
        new_values,
        request.to(tl.int64) * token_stride + head * head_stride,
        target,
        length,
        expires,
        slot,
        list_,
        superblocks,
        superblocks_stride,
        num_superblocks,
        layers * heads,
        pages_used,
        pages,
        num_pages,
        lens,
        newest_places,
        expiry,
        keys,
        values,
        scales,
        page_stride,
        lens_out + out,
        block_table + (request.to(tl.int64) * heads + head) * block_stride,
        N,
        D,
        SCAN,
        FP8,
    )


def decode_update(
    tables: KernelTables,
    cache: PagedCache,
    layer: int,
    requests: DecodeRequests,
    keys: Tensor,
    values: Tensor,
    lens_out: Tensor,
    block_table: Tensor,
    *,
    verdicts: Tensor | None = None,
    window: int = 0,
    on_new: bool = False,
    new_expiry: Tensor | None = None,
    targets: Tensor | None = None,
    victims: Victims | None = None,
    appends: bool = False,
) -> None:
    """Store one token in every list of a layer: in place of an entry that expired, else at the end.

    An entry is gone for query q once q has reached its expiry. What other entries expired at the same query is removed
    as well, so that a list never has gaps. Nothing waits for the host.

    Args:
        tables: The worker's tables; changed.
        cache: The cache; changed.
        layer: The layer.
        requests: The requests, each once; those of block 0 are left alone.
        keys: (requests, heads, head_dim), after RoPE; head_dim a power of two, contiguous.
        values: As keys, with the same strides.
        lens_out: (requests, heads) int32, rows may be strided; written: entries of each list, all read by the step.
        block_table: (requests, heads, pages) int32, contiguous; written as far as a list has entries: its pages.
        verdicts: (requests, heads), any strides: whether the token *before* is to go (DMS), as bool, or as logits,
            which are above 0 then; None if there are no gates.
        window: w of DMS: what a verdict at query q is on, the token of position q - 1, is gone from query q + w on.
        on_new: Verdicts are on the tokens that are stored instead: gone from query q + w + 1 on.
        new_expiry: (requests,) expiry of the new entries; None if they have none.
        targets: (requests, heads) integers, any strides: the place that each list writes to, its length or more to
            append; None to write over what has expired.
        victims: The place instead, by slot, of lists that are full; the others append.
        appends: Whether all lists append instead.
    """
    count, heads, dim = keys.shape
    if not count:
        return
    places = "targets" if targets is not None else "victims" if victims is not None else "expired"
    _decode_update_kernel[(count, heads)](
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        keys if verdicts is None else verdicts.view(torch.uint8) if verdicts.dtype == torch.bool else verdicts,
        *((0, 0) if verdicts is None else verdicts.stride()),
        keys if new_expiry is None else new_expiry,
        keys if targets is None else targets,
        0 if targets is None else targets.stride(0),
        0 if targets is None else targets.stride(1),
        keys if victims is None else victims.places,
        keys if victims is None else victims.limits,
        requests.first_blocks,
        requests.first_blocks.stride(0),
        requests.positions,
        tables.slot_of_block,
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
        cache.keys.stride(0),
        lens_out,
        lens_out.stride(0),
        block_table,
        block_table.shape[-1],
        layer,
        tables.page_table.shape[1],
        heads,
        tables.page_table.shape[0],
        window,
        N=tables.page_tokens,
        D=dim,
        SCAN=SCAN,
        HAS_VERDICTS=verdicts is not None,
        HAS_NEW_EXPIRY=new_expiry is not None,
        PLACES="end" if appends else places,
        ON_NEW=on_new,
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        num_warps=8,
    )
