# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201
"""Parts of kernels: expiries of entries, pages from the supply, gaps in a list, one block of a running softmax."""

import triton
import triton.language as tl

NEVER = tl.constexpr(2**31 - 1)


@triton.jit
def expiries(index, stop, pages, expiry, last, lowered, N: tl.constexpr):
    """Expiries of the entries ``index`` of a list; NEVER from ``stop`` on.

    ``pages`` points at the list's row of the page table. The entry ``last`` expires at ``lowered`` at the latest: a
    verdict that this launch also writes to memory, but that must not be looked for there yet.
    """
    inside = (index >= 0) & (index < stop)
    page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
    found = tl.load(expiry + page * N + index % N, mask=inside, other=NEVER)
    return tl.where(index == last, tl.minimum(found, lowered), found)


@triton.jit
def fresh_page(virtual, slot, supply, supply_stride, supplied, size):
    """The page behind a virtual page number of a slot; in block 0, which is nobody's, if the supply has run out."""
    block = virtual // size
    granted = tl.load(supplied + slot)
    found = tl.load(supply + slot.to(tl.int64) * supply_stride + block, mask=block < granted, other=0)
    return found * size + virtual % size


@triton.jit
def next_expired(start, stop, query, pages, expiry, last, lowered, N: tl.constexpr, SCAN: tl.constexpr):
    """The first entry from ``start`` on that ``query`` no longer sees; ``stop`` if there is none."""
    found = stop
    at = start
    while at < found:
        index = at + tl.arange(0, SCAN)
        gone = (index < stop) & (expiries(index, stop, pages, expiry, last, lowered, N) <= query)
        found = tl.minimum(found, tl.min(tl.where(gone, index, stop), 0))
        at += SCAN
    return found


@triton.jit
def previous_live(stop, query, pages, expiry, last, lowered, N: tl.constexpr, SCAN: tl.constexpr):
    """The last entry before ``stop`` that ``query`` sees; -1 if there is none."""
    found = stop * 0 - 1
    at = stop
    while (at > 0) & (found < 0):
        index = at - SCAN + tl.arange(0, SCAN)
        live = (index >= 0) & (expiries(index, stop, pages, expiry, last, lowered, N) > query)
        found = tl.max(tl.where(live, index, -1), 0)
        at -= SCAN
    return found


@triton.jit
def close_gaps(
    first,
    length,
    held,
    query,
    pages,
    expiry,
    last,
    lowered,
    keys,
    values,
    page_stride,
    N: tl.constexpr,
    D: tl.constexpr,
    SCAN: tl.constexpr,
):
    """Move the last live entries of a list into its gaps, until its first ``length`` places have none.

    Gaps are looked for from ``first`` on, live entries from ``held`` downwards. No place is both read and written, so
    the moves need no order among each other. One at a time: only rules that let several entries go at once come here.
    """
    d = tl.arange(0, D)
    source = held
    gap = next_expired(first, length, query, pages, expiry, last, lowered, N, SCAN)
    while gap < length:
        source = previous_live(source, query, pages, expiry, last, lowered, N, SCAN)
        old = tl.load(pages + source // N).to(tl.int64)
        new = tl.load(pages + gap // N).to(tl.int64)
        from_ = old * page_stride + (source % N) * D + d
        to = new * page_stride + (gap % N) * D + d
        tl.store(keys + to, tl.load(keys + from_))
        tl.store(values + to, tl.load(values + from_))
        expires = tl.load(expiry + old * N + source % N)
        tl.store(expiry + new * N + gap % N, tl.where(source == last, tl.minimum(expires, lowered), expires))
        gap = next_expired(gap + 1, length, query, pages, expiry, last, lowered, N, SCAN)


@triton.jit
def softmax_block(q, k, v, visible, high, total, acc, scale, PRECISION: tl.constexpr):
    """One block of keys of attention with a running softmax in base 2.

    Args:
        q: (M, D) queries.
        k: (B, D) keys.
        v: (B, D) values.
        visible: (M, B) or (1, B), what each query sees.
        high: (M,) float32, largest score so far.
        total: (M,) float32, sum of weights relative to it.
        acc: (M, D) float32, weighted values relative to it.
        scale: Factor on the scores, times log2(e).
        PRECISION: Of products of float32.
    """
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(visible, scores, float("-inf"))
    above = tl.maximum(high, tl.max(scores, 1))
    base = tl.where(above == float("-inf"), 0.0, above)  # a row that has seen nothing yet
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(high - base)
    total = total * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return above, total, acc
