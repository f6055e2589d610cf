# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Triton kernels of a decode step over the rows of a `RaggedCache`, which they find by their addresses.

Addresses and lengths are read from the device's memory, so a launch is the same whatever rows there are and wherever
they lie: a CUDA graph that holds it need not be made anew when rows grow, move or leave. A row with address 0 is
padding: nothing is written, and its attention is 0.

1. `write`: the step's entry goes into its slot, and the row's length follows.
2. `attend`: parts of each row in parallel (split-K), then their sum.
3. `attend` with weights: the scores that the parts have left become attention weights.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_PART = 128  # least entries of a part
_BLOCK = 64  # entries of a step of a part's loop
_MOST_PARTS = 32  # of a row
_PROGRAMS = 1024  # that a launch should have, to fill the multiprocessors of a large GPU several times
_WEIGHTS_BLOCK = 1024


@triton.jit
def _write_kernel(
    keys,
    values,
    slots,
    lens,
    keys_at,
    values_at,
    bias_at,
    D: tl.constexpr,
):
    # Grid (rows,): a program writes one entry.
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row)
    tl.store(lens + row, tl.maximum(tl.load(lens + row), slot + 1))  # a row that overwrites keeps its length
    address = tl.load(keys_at + row)
    if address == 0:
        return
    d = tl.arange(0, D)
    row_keys = address.to(tl.pointer_type(keys.dtype.element_ty))
    row_values = tl.load(values_at + row).to(tl.pointer_type(keys.dtype.element_ty))
    row_bias = tl.load(bias_at + row).to(tl.pointer_type(keys.dtype.element_ty))
    tl.store(row_keys + slot * D + d, tl.load(keys + row * D + d))
    tl.store(row_values + slot * D + d, tl.load(values + row * D + d))
    tl.store(row_bias + slot, 0.0)


@triton.jit
def _part_size(length, SPLITS: tl.constexpr, PART: tl.constexpr):
    """Entries of a part: a multiple of ``PART`` with which ``SPLITS`` parts hold the row."""
    return tl.maximum((length + SPLITS * PART - 1) // (SPLITS * PART), 1) * PART


@triton.jit
def _parts_kernel(
    queries,
    lens,
    keys_at,
    values_at,
    part_acc,
    part_high,
    part_total,
    scores_out,
    selected,
    width,
    scale,
    D: tl.constexpr,
    G: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
    KEEPS_SCORES: tl.constexpr,
    SELECTS: tl.constexpr,
):
    # Grid (parts, rows): a program attends with a row's G queries to one part of it.
    split, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    keys_address = tl.load(keys_at + row)
    if keys_address == 0:
        return
    length = tl.load(lens + row).to(tl.int32)
    size = _part_size(length, SPLITS, PART)
    begin = split * size
    if begin >= length:  # the row has fewer parts
        return
    end = tl.minimum(begin + size, length)
    # Storage is aligned, and so is every row in it: without this the compiler loads number by number.
    keys_address = tl.multiple_of(keys_address, 16)
    values_address = tl.multiple_of(tl.load(values_at + row), 16)
    row_keys = tl.multiple_of(keys_address.to(tl.pointer_type(queries.dtype.element_ty)), 16)
    row_values = tl.multiple_of(values_address.to(tl.pointer_type(queries.dtype.element_ty)), 16)
    # tl.dot takes at least 16 rows: those past G are idle.
    g, d = tl.arange(0, GROUP), tl.arange(0, D)
    real = g < G
    q = tl.load(queries + (row * G + g)[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    high = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    acc = tl.zeros((GROUP, D), tl.float32)
    for block_begin in range(begin, end, BLOCK):
        index = block_begin + tl.arange(0, BLOCK)
        inside = index < end
        # (GROUP, BLOCK) of a row's (G, width) numbers by slot, in those tensors that have them.
        by_slot = (row * G + g)[:, None] * width + index[None, :]
        has_slot = real[:, None] & inside[None, :] & (index < width)[None, :]
        if SELECTS:
            visible = tl.load(selected + by_slot, mask=has_slot, other=0) != 0
            inside = tl.max(visible.to(tl.int32), 0) != 0  # what no query head reads is not loaded
        else:
            visible = inside[None, :]
        entry = index[:, None] * D + d[None, :]
        k = tl.load(row_keys + entry, mask=inside[:, None], other=0.0)
        v = tl.load(row_values + entry, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(visible, scores, float("-inf"))
        if KEEPS_SCORES:
            tl.store(scores_out + by_slot, scores, mask=has_slot)
        above = tl.maximum(high, tl.max(scores, 1))
        base = tl.where(above == float("-inf"), 0.0, above)  # nothing seen yet: -inf minus -inf is no number
        weights = tl.exp2(scores - base[:, None])
        # What was summed so far was relative to the old maximum.
        shrink = tl.exp2(high - base)
        total = total * shrink + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        high = above
    # Not normalised yet: that takes the maxima and sums of all parts.
    part = (row * SPLITS + split) * G + g
    tl.store(part_high + part, high, mask=real)
    tl.store(part_total + part, total, mask=real)
    tl.store(part_acc + part[:, None] * D + d[None, :], acc, mask=real[:, None])


@triton.jit
def _combine_kernel(
    part_acc,
    part_high,
    part_total,
    lens,
    keys_at,
    out,
    log_sum,
    D: tl.constexpr,
    G: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLITS_BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    # Grid (rows * G,): a program adds up the parts of one query head, all at once, and normalises.
    head = tl.program_id(0).to(tl.int64)
    row, g = head // G, head % G
    length = tl.load(lens + row).to(tl.int32)
    length = tl.where(tl.load(keys_at + row) == 0, 0, length)
    size = _part_size(length, SPLITS, PART)
    split, d = tl.arange(0, SPLITS_BLOCK), tl.arange(0, D)
    real = split < (length + size - 1) // size
    part = (row * SPLITS + split) * G + g
    highs = tl.load(part_high + part, mask=real, other=float("-inf"))
    totals = tl.load(part_total + part, mask=real, other=0.0)
    accs = tl.load(part_acc + part[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    # All are brought to the largest maximum before they are added. Padding, and parts without a choice, have none.
    high = tl.max(highs, 0)
    high = tl.where(high == float("-inf"), 0.0, high)
    shares = tl.exp2(highs - high)
    total = tl.sum(totals * shares, 0)
    total = tl.where(total == 0.0, 1.0, total)  # padding gives zeros
    tl.store(out + head * D + d, tl.sum(accs * shares[:, None], 0) / total)
    tl.store(log_sum + head, high + tl.log2(total))


@triton.jit
def _weights_kernel(scores, log_sum, lens, keys_at, width, G: tl.constexpr, BLOCK: tl.constexpr):
    # Grid (blocks, rows * G): a program turns scores of one query head into weights, in place.
    head = tl.program_id(1).to(tl.int64)
    row = head // G
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    length = tl.where(tl.load(keys_at + row) == 0, 0, tl.load(lens + row))
    inside, live = slot < width, slot < length
    score = tl.load(scores + head * width + slot, mask=inside & live, other=float("-inf"))
    weight = tl.where(live, tl.exp2(score - tl.load(log_sum + head)), 0.0)
    tl.store(scores + head * width + slot, weight, mask=inside)


def explain_unsupported(dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the kernels do not take keys of this type and size, in words for the user; None if they do."""
    if dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"the kernels take no {str(dtype).removeprefix('torch.')}"
    if head_dim & (head_dim - 1) or not 16 <= head_dim <= 256:
        return f"the kernels take heads of a power of two from 16 to 256, not of {head_dim}"
    return None


def write(keys: Tensor, values: Tensor, slots: Tensor, lens: Tensor, addresses: Tensor) -> None:
    """Write one entry into every row.

    Args:
        keys: (rows, head_dim), contiguous.
        values: (rows, head_dim), contiguous.
        slots: (rows,) int64, contiguous: the slot that each is written to.
        lens: (rows,) int64, contiguous: lengths of the rows; raised where an entry is appended.
        addresses: (3, rows or more) int64: where each row's keys, values and biases begin; 0 for no row.
    """
    rows, dim = keys.shape
    _write_kernel[(rows,)](keys, values, slots, lens, *addresses.unbind(0), D=dim, num_warps=1)


def attend(
    queries: Tensor,
    lens: Tensor,
    addresses: Tensor,
    scale: float,
    *,
    width: int = 0,
    selected: Tensor | None = None,
    with_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one query a query head to its row.

    Args:
        queries: (rows, group, head_dim), contiguous.
        lens: (rows,) int64, contiguous: entries of each row.
        addresses: As `write` takes them.
        scale: Factor on the scores.
        width: Slots of ``selected`` and of the weights, at least the entries of the longest row.
        selected: (rows, group, width) bool, contiguous: what each query head reads; all if None.
        with_weights: Whether to return the attention weights.

    Returns:
        (rows, group, head_dim), and the weights (rows, group, width) float32, 0 where there is no entry.
    """
    rows, group, dim = queries.shape
    keys_at, values_at, _ = addresses.unbind(0)
    # Parts are cut by each row's own length; how many there are at most is fixed, as under a CUDA graph the launch is.
    splits = min(triton.cdiv(_PROGRAMS, rows), _MOST_PARTS)
    options = {"dtype": torch.float32, "device": queries.device}
    # What each part leaves for the second kernel: weighted values, largest scores (base 2) and sums of weights.
    acc = torch.empty(rows, splits, group, dim, **options)  # type: ignore[call-overload]
    high = torch.empty(rows, splits, group, **options)  # type: ignore[call-overload]
    total, log_sum, out = torch.empty_like(high), high.new_empty(rows, group), torch.empty_like(queries)
    scores = torch.empty(rows, group, width, **options) if with_weights else None  # type: ignore[call-overload]
    cut = {"D": dim, "G": group, "SPLITS": splits, "PART": _PART}
    _parts_kernel[(splits, rows)](
        queries,
        lens,
        keys_at,
        values_at,
        acc,
        high,
        total,
        acc if scores is None else scores,
        acc if selected is None else selected,
        width,
        scale * math.log2(math.e),
        GROUP=max(triton.next_power_of_2(group), 16),  # the least that tl.dot takes
        BLOCK=_BLOCK if dim <= 128 and queries.dtype != torch.float32 else _BLOCK // 2,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        KEEPS_SCORES=scores is not None,
        SELECTS=selected is not None,
        num_warps=4,
        num_stages=3,
        **cut,
    )
    parts = (acc, high, total, lens, keys_at, out, log_sum)
    _combine_kernel[(rows * group,)](*parts, SPLITS_BLOCK=triton.next_power_of_2(splits), num_warps=4, **cut)
    if scores is not None:
        grid = (triton.cdiv(width, _WEIGHTS_BLOCK), rows * group)
        _weights_kernel[grid](scores, log_sum, lens, keys_at, width, G=group, BLOCK=_WEIGHTS_BLOCK)
    return out, scores
