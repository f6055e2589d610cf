# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Triton kernels of attention over packed documents, forward and backward, with a bias on keys beyond a window.

With s = scale q·k + [q - k > window] bias_k, weights p = e^s / Σ e^s and outputs o = Σ p v::

    dv = Σ_q p do        ds = p (do·v - do·o)        dq = scale Σ_k ds k        dk = scale Σ_q ds q
    dbias = Σ ds  over the queries older than the window

The last two sums go over the query heads of a KV head as well. Scores, biases and the logarithms of sums of weights are
in units of log 2 here, in which exponentials are computed. FlashAttention (arXiv 2307.08691) has the order of the
loops: `_forward_kernel` and `_query_gradient_kernel` go over the keys of a block of queries,
`_key_gradient_kernel` over the queries of a block of keys. Nothing is added up atomically, so that a result is the same
in each run.

Documents are intervals of a row: a query sees keys from its document's first token, ``starts``, and a key is seen by
queries before ``ends``, one past its document's last. Both grow along a row, so each loop has three parts: the first
and the last one compare every pair, and the one in between, whose pairs are all visible and all of one side of the
window, compares none.
"""

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
#: The largest score before there is one; finite, so that the difference of two of them is a number.
_LOWEST = tl.constexpr(-1e30)


@triton.jit
def _load_rows(base, first, stride, length, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, WHOLE: tl.constexpr):
    """(N, D) rows from ``first`` on; 0 from ``length`` on, unless there are ``WHOLE`` ones, and beyond DIM."""
    n, d = tl.arange(0, N), tl.arange(0, D)
    # 64 bits where a tensor may be that large; the distances inside a block are not.
    at = base + first * tl.cast(stride, tl.int64) + n[:, None] * stride + d[None, :]
    if WHOLE and D == DIM:
        rows = tl.load(at)
    else:
        rows = tl.load(at, mask=(first + n < length)[:, None] & (d < DIM)[None, :], other=0.0)
    return rows


@triton.jit
def _load_numbers(base, index, length, WHOLE: tl.constexpr):
    """One number for each index; 0 from ``length`` on, unless there are ``WHOLE`` ones."""
    if WHOLE:
        numbers = tl.load(base + index)
    else:
        numbers = tl.load(base + index, mask=index < length, other=0.0)
    return numbers


@triton.jit
def _store_rows(base, rows, first, stride, length, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr):
    """The counterpart of `_load_rows`."""
    n, d = tl.arange(0, N), tl.arange(0, D)
    at = base + first * tl.cast(stride, tl.int64) + n[:, None] * stride + d[None, :]
    inside = (first + n < length)[:, None] & (d < DIM)[None, :]
    tl.store(at, rows.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _key_spans(starts, first, length, window, M: tl.constexpr, N: tl.constexpr, BIASED: tl.constexpr):
    """Where the keys of the M queries from ``first`` on begin and end, and the part of them that needs no comparison.

    Returns:
        Begin of the first part, of the second and of the third, and the end. The second part is empty, or begins and
        ends at multiples of N, and holds keys that every query sees, all beyond the window if there is a bias.
    """
    last = tl.minimum(first + M, length) - 1
    begin = tl.load(starts + first) // N * N
    common = (tl.load(starts + last) + N - 1) // N * N
    if BIASED:
        whole = tl.maximum(first - window, 0) // N * N
    else:
        whole = first // N * N
    return begin, common, tl.maximum(whole, common), last + 1


@triton.jit
def _query_spans(ends, first, length, window, M: tl.constexpr, N: tl.constexpr, BIASED: tl.constexpr):
    """The same of the queries, M at a time, of the N keys from ``first`` on."""
    last = tl.minimum(first + N, length) - 1
    if BIASED:
        whole = (first + N + window + M - 1) // M * M
    else:
        whole = (first + N + M - 1) // M * M
    common = tl.load(ends + first) // M * M
    return first // M * M, whole, tl.maximum(whole, common), tl.load(ends + last)


@triton.jit
def _scores(q, k, bias, queries, keys, begins, window, scale, PRECISION: tl.constexpr, BIASED: tl.constexpr,
            COMPARED: tl.constexpr):  # fmt: skip
    """(M, N) scores in units of log 2; -inf where ``COMPARED`` and not visible."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if COMPARED:
        # Rows are compared with columns: a matrix of ages would stay in registers all through the loop.
        if BIASED:
            scores += tl.where(keys[None, :] < (queries - window)[:, None], bias[None, :], 0.0)
        visible = (keys[None, :] <= queries[:, None]) & (keys[None, :] >= begins[:, None])
        scores = tl.where(visible, scores, float("-inf"))
    elif BIASED:
        scores += bias[None, :]
    return scores


@triton.jit
def _forward_part(
    acc, high, total, q, k_base, v_base, bias_base, begin, end, queries, begins, k_stride, v_stride, length, window,
    scale, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr, BIASED: tl.constexpr,
    COMPARED: tl.constexpr,
):  # fmt: skip
    """Weighted values, largest scores and sums of weights of M queries, with the keys from ``begin`` to ``end``."""
    for first in range(begin, end, N):
        keys = first + tl.arange(0, N)
        bias = 0.0
        if BIASED:
            bias = _load_numbers(bias_base, keys, length, not COMPARED)
        k = _load_rows(k_base, first, k_stride, length, N, D, DIM, not COMPARED)
        scores = _scores(q, k, bias, queries, keys, begins, window, scale, PRECISION, BIASED, COMPARED)
        above = tl.maximum(high, tl.max(scores, 1))
        weights = tl.exp2(scores - above[:, None])
        shrink = tl.exp2(high - above)  # what was summed so far was relative to the old maximum
        total = total * shrink + tl.sum(weights, 1)
        v = _load_rows(v_base, first, v_stride, length, N, D, DIM, not COMPARED)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        high = above
    return acc, high, total


@triton.jit
def _forward_kernel(
    q, k, v, bias, starts, out, log_sums,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, o_row, o_head, o_token,
    heads, group, length, window, scale,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr,
    BIASED: tl.constexpr,
):  # fmt: skip
    # Grid (rows * heads, blocks of queries): the longest programs, those of the last queries, come first.
    row, head = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0).to(tl.int64) % heads
    first = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    kv_head = head // group
    k += row * k_row + kv_head * k_head
    v += row * v_row + kv_head * v_head
    bias += (row * (heads // group) + kv_head) * length
    starts += row * length
    queries = first + tl.arange(0, M)
    begins = tl.load(starts + queries, mask=queries < length, other=0)
    queries_block = _load_rows(q + row * q_row + head * q_head, first, q_token, length, M, D, DIM, False)
    acc = tl.zeros((M, D), tl.float32)
    high, total = tl.full((M,), _LOWEST, tl.float32), tl.zeros((M,), tl.float32)
    begin, common, near, end = _key_spans(starts, first, length, window, M, N, BIASED)
    acc, high, total = _forward_part(
        acc, high, total, queries_block, k, v, bias, begin, tl.minimum(common, end), queries, begins, k_token, v_token,
        length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, True,
    )  # fmt: skip
    acc, high, total = _forward_part(
        acc, high, total, queries_block, k, v, bias, common, near, queries, begins, k_token, v_token,
        length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, False,
    )  # fmt: skip
    acc, high, total = _forward_part(
        acc, high, total, queries_block, k, v, bias, near, end, queries, begins, k_token, v_token,
        length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, True,
    )  # fmt: skip
    _store_rows(out + row * o_row + head * o_head, acc / total[:, None], first, o_token, length, M, D, DIM)
    sums = log_sums + (row * heads + head) * length
    tl.store(sums + queries, high + tl.log2(total), mask=queries < length)


@triton.jit
def _query_gradient_part(
    dq, q, do, log_sum, delta, k_base, v_base, bias_base, begin, end, queries, begins, k_stride, v_stride, length,
    window, scale, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr, BIASED: tl.constexpr,
    COMPARED: tl.constexpr,
):  # fmt: skip
    """Σ ds k of M queries over the keys from ``begin`` to ``end``, added to ``dq``."""
    for first in range(begin, end, N):
        keys = first + tl.arange(0, N)
        bias = 0.0
        if BIASED:
            bias = _load_numbers(bias_base, keys, length, not COMPARED)
        k = _load_rows(k_base, first, k_stride, length, N, D, DIM, not COMPARED)
        v = _load_rows(v_base, first, v_stride, length, N, D, DIM, not COMPARED)
        scores = _scores(q, k, bias, queries, keys, begins, window, scale, PRECISION, BIASED, COMPARED)
        weights = tl.exp2(scores - log_sum[:, None])
        ds = weights * (tl.dot(do, tl.trans(v), input_precision=PRECISION) - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton.jit
def _query_gradient_kernel(
    q, k, v, bias, starts, out, log_sums, d_out, dq, deltas,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, o_row, o_head, o_token,
    do_row, do_head, do_token, dq_row, dq_head, dq_token,
    heads, group, length, window, scale,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr,
    BIASED: tl.constexpr,
):  # fmt: skip
    # Grid as that of the forward kernel. Leaves do·o in deltas, which the other kernel needs too.
    row, head = tl.program_id(0).to(tl.int64) // heads, tl.program_id(0).to(tl.int64) % heads
    first = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    kv_head = head // group
    k += row * k_row + kv_head * k_head
    v += row * v_row + kv_head * v_head
    bias += (row * (heads // group) + kv_head) * length
    starts += row * length
    queries = first + tl.arange(0, M)
    inside = queries < length
    begins = tl.load(starts + queries, mask=inside, other=0)
    by_query = (row * heads + head) * length + queries
    log_sum = tl.load(log_sums + by_query, mask=inside, other=0.0)
    do = _load_rows(d_out + row * do_row + head * do_head, first, do_token, length, M, D, DIM, False)
    o = _load_rows(out + row * o_row + head * o_head, first, o_token, length, M, D, DIM, False)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(deltas + by_query, delta, mask=inside)
    queries_block = _load_rows(q + row * q_row + head * q_head, first, q_token, length, M, D, DIM, False)
    acc = tl.zeros((M, D), tl.float32)
    begin, common, near, end = _key_spans(starts, first, length, window, M, N, BIASED)
    acc = _query_gradient_part(
        acc, queries_block, do, log_sum, delta, k, v, bias, begin, tl.minimum(common, end), queries, begins, k_token,
        v_token, length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, True,
    )  # fmt: skip
    acc = _query_gradient_part(
        acc, queries_block, do, log_sum, delta, k, v, bias, common, near, queries, begins, k_token,
        v_token, length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, False,
    )  # fmt: skip
    acc = _query_gradient_part(
        acc, queries_block, do, log_sum, delta, k, v, bias, near, end, queries, begins, k_token,
        v_token, length, window, scale * _LOG2E, N, D, DIM, PRECISION, BIASED, True,
    )  # fmt: skip
    _store_rows(dq + row * dq_row + head * dq_head, acc * scale, first, dq_token, length, M, D, DIM)


@triton.jit
def _key_gradient_part(
    dk, dv, db, k, v, bias, q_base, do_base, log_sums, deltas, begin, end, keys, stops, q_stride, do_stride, length,
    window, scale, M: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr, BIASED: tl.constexpr,
    COMPARED: tl.constexpr,
):  # fmt: skip
    """Σ ds q, Σ p do and Σ ds of N keys over the queries from ``begin`` to ``end``, added to what there is."""
    for first in range(begin, end, M):
        queries = first + tl.arange(0, M)
        q = _load_rows(q_base, first, q_stride, length, M, D, DIM, not COMPARED)
        do = _load_rows(do_base, first, do_stride, length, M, D, DIM, not COMPARED)
        # Transposed, (N, M): the weights are then the left operand of both products, which stays in registers.
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale
        if COMPARED:
            if BIASED:
                scores += tl.where((queries - window)[None, :] > keys[:, None], bias[:, None], 0.0)
            visible = (queries[None, :] >= keys[:, None]) & (queries[None, :] < stops[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        elif BIASED:
            scores += bias[:, None]
        # One number a query is many registers in this layout: each is loaded where it is used.
        weights = tl.exp2(scores - _load_numbers(log_sums, queries, length, not COMPARED)[None, :])
        dv = tl.dot(weights.to(do.dtype), do, dv, input_precision=PRECISION)
        d_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        ds = weights * (d_weights - _load_numbers(deltas, queries, length, not COMPARED)[None, :])
        if BIASED:
            if COMPARED:
                db += tl.sum(tl.where((queries - window)[None, :] > keys[:, None], ds, 0.0), 1)
            else:
                db += tl.sum(ds, 1)
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv, db


@triton.jit
def _key_gradient_kernel(
    q, k, v, bias, ends, log_sums, d_out, deltas, dk, dv, d_bias,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, do_row, do_head, do_token,
    dk_part, dk_row, dk_head, dk_token, dv_part, dv_row, dv_head, dv_token,
    rows, heads, kv_heads, parts, length, window, scale,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr,
    BIASED: tl.constexpr,
):  # fmt: skip
    # Grid (rows * KV heads * parts of a group, blocks of keys): a program takes some of the query heads of a KV head.
    program = tl.program_id(0).to(tl.int64)
    row, kv_head, part = program // (kv_heads * parts), program // parts % kv_heads, program % parts
    first = tl.program_id(1) * N
    keys = first + tl.arange(0, N)
    inside = keys < length
    ends += row * length
    stops = tl.load(ends + keys, mask=inside, other=0)
    own = 0.0
    if BIASED:
        own = tl.load(bias + (row * kv_heads + kv_head) * length + keys, mask=inside, other=0.0)
    k_block = _load_rows(k + row * k_row + kv_head * k_head, first, k_token, length, N, D, DIM, False)
    v_block = _load_rows(v + row * v_row + kv_head * v_head, first, v_token, length, N, D, DIM, False)
    dk_acc, dv_acc, db = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32), tl.zeros((N,), tl.float32)
    begin, far, rest, end = _query_spans(ends, first, length, window, M, N, BIASED)
    per_part = heads // (kv_heads * parts)
    head0 = (kv_head * parts + part) * per_part
    for head in range(head0, head0 + per_part):
        q_base, do_base = q + row * q_row + head * q_head, d_out + row * do_row + head * do_head
        sums, own_deltas = (log_sums + (row * heads + head) * length, deltas + (row * heads + head) * length)
        dk_acc, dv_acc, db = _key_gradient_part(
            dk_acc, dv_acc, db, k_block, v_block, own, q_base, do_base, sums, own_deltas, begin, tl.minimum(far, end),
            keys, stops, q_token, do_token, length, window, scale * _LOG2E, M, D, DIM, PRECISION, BIASED, True,
        )  # fmt: skip
        dk_acc, dv_acc, db = _key_gradient_part(
            dk_acc, dv_acc, db, k_block, v_block, own, q_base, do_base, sums, own_deltas, far, rest,
            keys, stops, q_token, do_token, length, window, scale * _LOG2E, M, D, DIM, PRECISION, BIASED, False,
        )  # fmt: skip
        dk_acc, dv_acc, db = _key_gradient_part(
            dk_acc, dv_acc, db, k_block, v_block, own, q_base, do_base, sums, own_deltas, rest, end,
            keys, stops, q_token, do_token, length, window, scale * _LOG2E, M, D, DIM, PRECISION, BIASED, True,
        )  # fmt: skip
    dk += part * dk_part + row * dk_row + kv_head * dk_head
    dv += part * dv_part + row * dv_row + kv_head * dv_head
    _store_rows(dk, dk_acc * scale, first, dk_token, length, N, D, DIM)
    _store_rows(dv, dv_acc, first, dv_token, length, N, D, DIM)
    if BIASED:
        at = ((part * rows + row) * kv_heads + kv_head) * length
        tl.store(d_bias + at + keys, db, mask=inside)
