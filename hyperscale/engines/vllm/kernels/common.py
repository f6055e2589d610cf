# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201
"""Parts that several kernels share: expiries of entries, new pages, gaps in a list, one block of a running softmax."""

import triton
import triton.language as tl

from hyperscale.engines.vllm import protocol

NEVER = tl.constexpr(protocol.NEVER)  # kernels may use globals only if they are constants of Triton's


@triton.jit
def load_expiries(index, stop, pages, expiry, newest, verdict_expiry, N: tl.constexpr):
    """Expiries of the entries ``index`` of a list; NEVER from ``stop`` on.

    ``pages`` points at the list's row of the page table. The entry ``newest`` expires at ``verdict_expiry`` at the
    latest: a verdict that this launch also writes to memory, but that must not be looked for there yet, as there is no
    order between the stores and the loads of a program's threads.
    """
    inside = (index >= 0) & (index < stop)
    page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
    stored_expiry = tl.load(expiry + page * N + index % N, mask=inside, other=NEVER)
    return tl.where(index == newest, tl.minimum(stored_expiry, verdict_expiry), stored_expiry)


@triton.jit
def page_of(virtual, slot, superblocks, superblocks_stride, num_superblocks, num_lists):
    """The page behind a virtual page number of a slot; in block 0, which is nobody's, if the superblocks run out."""
    index = virtual // num_lists
    count = tl.load(num_superblocks + slot)
    block = tl.load(superblocks + slot.to(tl.int64) * superblocks_stride + index, mask=index < count, other=0)
    return block * num_lists + virtual % num_lists


@triton.jit
def next_expired(start, stop, query, pages, expiry, newest, verdict_expiry, N: tl.constexpr, SCAN: tl.constexpr):
    """The first entry from ``start`` on that ``query`` no longer sees; ``stop`` if there is none."""
    first = stop
    begin = start
    while begin < first:  # SCAN entries at a time, until a block has one
        index = begin + tl.arange(0, SCAN)
        is_expired = (index < stop) & (load_expiries(index, stop, pages, expiry, newest, verdict_expiry, N) <= query)
        first = tl.minimum(first, tl.min(tl.where(is_expired, index, stop), 0))
        begin += SCAN
    return first


@triton.jit
def previous_live(stop, query, pages, expiry, newest, verdict_expiry, N: tl.constexpr, SCAN: tl.constexpr):
    """The last entry before ``stop`` that ``query`` sees; -1 if there is none."""
    last = stop * 0 - 1
    end = stop
    while (end > 0) & (last < 0):  # backwards, SCAN entries at a time
        index = end - SCAN + tl.arange(0, SCAN)
        is_live = (index >= 0) & (load_expiries(index, stop, pages, expiry, newest, verdict_expiry, N) > query)
        last = tl.max(tl.where(is_live, index, -1), 0)
        end -= SCAN
    return last


@triton.jit
def close_gaps(
    first,
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
    N: tl.constexpr,
    D: tl.constexpr,
    SCAN: tl.constexpr,
    FP8: tl.constexpr,
):
    """Move the last live entries of a list into its gaps, until its first ``length`` places have none.

    Gaps are looked for from ``first`` on, live entries from ``num_stored`` downwards. No place is both read and
    written, so the moves need no order among each other. One at a time: only methods that let several entries go at
    once come here.
    """
    d = tl.arange(0, D)
    source = num_stored
    gap = next_expired(first, length, query, pages, expiry, newest, verdict_expiry, N, SCAN)
    while gap < length:
        # As many live entries lie behind ``length`` as there are gaps before it, so there is always a source.
        source = previous_live(source, query, pages, expiry, newest, verdict_expiry, N, SCAN)
        source_page = tl.load(pages + source // N).to(tl.int64)
        gap_page = tl.load(pages + gap // N).to(tl.int64)
        source_at = source_page * page_stride + (source % N) * D + d
        gap_at = gap_page * page_stride + (gap % N) * D + d
        tl.store(keys + gap_at, tl.load(keys + source_at))
        tl.store(values + gap_at, tl.load(values + source_at))
        if FP8:  # as they are stored: nothing is rounded a second time
            stride = page_stride // 4
            scale = tl.load(scales + source_page * stride + source % N)
            tl.store(scales + gap_page * stride + gap % N, scale)
        # The expiry moves with its entry, lowered if the verdict is on this one.
        expires = tl.load(expiry + source_page * N + source % N)
        tl.store(
            expiry + gap_page * N + gap % N, tl.where(source == newest, tl.minimum(expires, verdict_expiry), expires)
        )
        gap = next_expired(gap + 1, length, query, pages, expiry, newest, verdict_expiry, N, SCAN)


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
    return softmax_scores(scores, v, visible, high, total, acc, PRECISION)


@triton.jit
def softmax_scores(scores, v, visible, high, total, acc, PRECISION: tl.constexpr):
    """As `softmax_block`, from the scores of the block, (M, B), times log2(e)."""
    scores = tl.where(visible, scores, float("-inf"))
    above = tl.maximum(high, tl.max(scores, 1))
    base = tl.where(above == float("-inf"), 0.0, above)  # a row that has seen nothing yet: -inf minus -inf is NaN
    weights = tl.exp2(scores - base[:, None])
    # What was summed so far was relative to the old maximum.
    shrink = tl.exp2(high - base)
    total = total * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return above, total, acc
