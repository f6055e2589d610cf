# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""What a decode step does to a layer's lists before it attends, in one kernel: evict, write, allocate, count."""

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import Decodes, Pool, Tables
from hyperscale.engines.vllm.kernels.common import close_gaps, expiries, fresh_page

SCAN = 2048  # entries whose expiries a program looks at at once


@triton.jit(do_not_specialize=["layer", "window"])
def _update(
    new_keys,
    new_values,
    token_stride,
    head_stride,
    verdicts,
    verdict_stride,
    born,
    first_blocks,
    first_stride,
    positions,
    slot_of_block,
    supply,
    supply_stride,
    supplied,
    bump,
    page_table,
    table_pages,
    capacity,
    lens,
    last_places,
    expiry,
    keys,
    values,
    page_stride,
    live,
    live_stride,
    block_table,
    block_stride,
    layer,
    layers,
    heads,
    window,
    N: tl.constexpr,
    D: tl.constexpr,
    SCAN: tl.constexpr,
    HAS_VERDICTS: tl.constexpr,
    HAS_BORN: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    out = row.to(tl.int64) * live_stride + head
    slot = tl.load(slot_of_block + tl.load(first_blocks + row * first_stride))
    if slot == 0:
        tl.store(live + out, 0)
        return
    query = tl.load(positions + row).to(tl.int32)
    list_ = (slot.to(tl.int64) * layers + layer) * heads + head
    pages = page_table + list_ * table_pages
    held = tl.load(lens + list_)
    last = tl.load(last_places + list_)
    lowered = query * 0 + 2147483647
    if HAS_VERDICTS:  # the verdict on the token before; it stays while the query is at most ``window`` past it
        evict = (tl.load(verdicts + row * verdict_stride + head) != 0) & (held > 0)
        lowered = tl.where(evict, query + window, lowered)

    expired = held * 0
    target = held
    for at in range(0, held, SCAN):
        index = at + tl.arange(0, SCAN)
        gone = (index < held) & (expiries(index, held, pages, expiry, last, lowered, N) <= query)
        expired += tl.sum(gone.to(tl.int32), 0)
        target = tl.minimum(target, tl.min(tl.where(gone, index, held), 0))
    length = held - expired + 1
    if expired > 1:
        close_gaps(target + 1, length, held, query, pages, expiry, last, lowered, keys, values, page_stride, N, D, SCAN)
    if HAS_VERDICTS:
        stays = evict & (last >= 0) & (last != target)
        told = tl.load(pages + last // N, mask=stays, other=0).to(tl.int64)
        tl.store(expiry + told * N + last % N, lowered, mask=stays)

    at_page = target // N
    have = tl.load(capacity + list_)
    if at_page >= have:
        page = fresh_page(tl.atomic_add(bump + slot, 1), slot, supply, supply_stride, supplied, layers * heads)
        tl.store(pages + at_page, page)
        tl.store(capacity + list_, have + 1)
    else:
        page = tl.load(pages + at_page)
    d = tl.arange(0, D)
    from_ = row.to(tl.int64) * token_stride + head * head_stride + d
    to = page.to(tl.int64) * page_stride + (target % N) * D + d
    tl.store(keys + to, tl.load(new_keys + from_))
    tl.store(values + to, tl.load(new_values + from_))
    if HAS_BORN:
        expires = tl.load(born + row).to(tl.int32)
    else:
        expires = lowered * 0 + 2147483647
    tl.store(expiry + page.to(tl.int64) * N + target % N, expires)
    tl.store(lens + list_, length)
    tl.store(last_places + list_, target)
    tl.store(live + out, length)

    used = (length + N - 1) // N
    copy = block_table + (row.to(tl.int64) * heads + head) * block_stride
    for at in range(0, used, SCAN // N):
        index = at + tl.arange(0, SCAN // N)
        known = tl.load(pages + index, mask=index < used, other=0)
        tl.store(copy + index, tl.where(index == at_page, page, known), mask=index < used)


def decode_update(
    tables: Tables,
    pool: Pool,
    layer: int,
    rows: Decodes,
    keys: Tensor,
    values: Tensor,
    live: Tensor,
    block_table: Tensor,
    *,
    verdicts: Tensor | None = None,
    window: int = 0,
    born: Tensor | None = None,
) -> None:
    """Store one token in every list of a layer: in place of an entry that expired, else at the end.

    An entry is gone for query q once q has reached its expiry. What other entries expired at the same query is removed
    as well, so that a list never has gaps. Nothing waits for the host.

    Args:
        tables: The worker's tables; changed.
        pool: The cache; changed.
        layer: The layer.
        rows: The requests, each once; those of block 0 are left alone.
        keys: (requests, heads, head_dim), after RoPE; head_dim a power of two, contiguous.
        values: As keys, with the same strides.
        live: (requests, heads) int32, rows may be strided; written: entries of each list, all of which the step reads.
        block_table: (requests, heads, pages) int32, contiguous; written as far as a list has entries: its pages.
        verdicts: (requests, heads) bool: whether the token *before* is to go (DMS); None if there are no gates.
        window: w of DMS: what a verdict at query q is on, the token of position q - 1, is gone from query q + w on.
        born: (requests,) expiry of the new entries; None if they have none.
    """
    count, heads, dim = keys.shape
    if not count:
        return
    _update[(count, heads)](
        keys,
        values,
        keys.stride(0),
        keys.stride(1),
        keys if verdicts is None else verdicts,
        0 if verdicts is None else verdicts.stride(0),
        keys if born is None else born,
        rows.first_blocks,
        rows.first_blocks.stride(0),
        rows.positions,
        tables.slot_of_block,
        tables.supply,
        tables.supply.stride(0),
        tables.supplied,
        tables.bump,
        tables.page_table,
        tables.page_table.shape[-1],
        tables.capacity,
        tables.lens,
        tables.last,
        tables.expiry,
        pool.keys,
        pool.values,
        pool.keys.stride(0),
        live,
        live.stride(0),
        block_table,
        block_table.shape[-1],
        layer,
        tables.page_table.shape[1],
        heads,
        window,
        N=tables.page_tokens,
        D=dim,
        SCAN=SCAN,
        HAS_VERDICTS=verdicts is not None,
        HAS_BORN=born is not None,
        num_warps=8,
    )
