# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Decode attention over lists: every (request, KV head) is a sequence of its own, with one KV head and G queries.

Two kernels: parts of each list in parallel (split-K), then their sum. Parts are equally long whatever the lists'
lengths, so that long and short lists keep all multiprocessors busy; parts that a list does not have end at once.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChosenPages, PagedCache
from hyperscale.engines.vllm.kernels.common import softmax_scores
from hyperscale.engines.vllm.kernels.fp8 import load_entries

MAX_PARTS = 32  # of a list
SHORTEST_PART = 128
ENOUGH_PROGRAMS = 256  # about two for each multiprocessor of a Hopper


class DecodeLaunch(NamedTuple):
    """How a launch is cut.

    Attributes:
        part: Least entries of a part.
        block: Entries of a step of a part's loop.
        warps: Of a program.
        stages: Of the loop's software pipeline. Entries are loaded by index, and each of the two loads takes its share:
            with less than 5 the entries of a step are asked for only when the step before it has ended.
    """

    part: int
    block: int
    warps: int
    stages: int

    @classmethod
    def of(cls, dtype: torch.dtype, dim: int, fp8: bool = False) -> "DecodeLaunch":
        """The usual one: a step of the loop loads as many bytes of a quantised cache as of another."""
        if dtype == torch.float32:
            return cls(512, 32, 4, 3)
        if fp8:
            return cls(512, 128 if dim <= 64 else 64, 4, 5)
        return cls(512, 64 if dim <= 64 else 32, 4, 5)

    def with_parts_for(self, lists: int, longest: int) -> "DecodeLaunch":
        """The same with shorter parts, where few lists or short ones would leave multiprocessors idle.

        Args:
            lists: How many there are.
            longest: At least the entries of the longest of them.
        """
        part = self.part
        while part > SHORTEST_PART and lists * triton.cdiv(longest, part) < ENOUGH_PROGRAMS:
            part //= 2
        return self._replace(part=part)


@triton.jit
def _part_size(length, SPLITS: tl.constexpr, PART: tl.constexpr):
    """Entries of a part: a multiple of ``PART`` with which ``SPLITS`` parts hold the list."""
    return tl.maximum((length + SPLITS * PART - 1) // (SPLITS * PART), 1) * PART


@triton.jit
def _decode_parts_kernel(
    queries,
    token_stride,
    keys,
    values,
    page_stride,
    lens,
    block_table,
    block_stride,
    part_acc,
    part_high,
    part_total,
    scores_out,
    selected,
    width,
    chosen,
    readers,
    chosen_stride,
    scale,
    heads,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
    KEEPS_SCORES: tl.constexpr,
    SELECTS: tl.constexpr,
    scales,
    FP8: tl.constexpr,
    CHOSEN: tl.constexpr,
):
    # Grid (parts, lists): a program attends with a list's G queries to one part of it.
    split, list_ = tl.program_id(0), tl.program_id(1)
    length = tl.load(lens + list_)
    size = _part_size(length, SPLITS, PART)
    begin = split * size
    if begin >= length:  # the list has fewer parts
        return
    end = tl.minimum(begin + size, length)
    # tl.dot takes at least 16 rows: those past G are idle.
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    real = g < G
    head_queries = queries + (list_ // heads).to(tl.int64) * token_stride + (list_ % heads) * G * D
    q = tl.load(head_queries + g[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    pages = block_table + list_.to(tl.int64) * block_stride
    high = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    for block_begin in range(begin, end, BLOCK):
        index = block_begin + tl.arange(0, BLOCK)
        inside = index < end
        if CHOSEN > 0:  # ``index`` counts the entries of chosen pages, of CHOSEN entries each
            rank = list_.to(tl.int64) * chosen_stride + index // CHOSEN
            bits = tl.load(readers + rank, mask=inside, other=0)
            index = tl.load(chosen + rank, mask=inside, other=0) * CHOSEN + index % CHOSEN
        page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
        # (ROWS, BLOCK) of a list's (G, width) numbers by place, in those tensors that have them.
        by_place = (list_.to(tl.int64) * G + g)[:, None] * width + index[None, :]
        has_place = real[:, None] & inside[None, :] & (index < width)[None, :]
        if SELECTS:
            visible = tl.load(selected + by_place, mask=has_place, other=0) != 0
            inside = tl.max(visible.to(tl.int32), 0) != 0  # what no query head reads is not loaded
        elif CHOSEN > 0:
            visible = ((bits[None, :] >> g[:, None]) & 1) != 0
        else:
            visible = inside[None, :]
        k, v = load_entries(keys, values, scales, page, index % N, inside, page_stride, D, q.dtype, FP8)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if KEEPS_SCORES:
            tl.store(scores_out + by_place, scores, mask=has_place)
        high, total, acc = softmax_scores(scores, v, visible, high, total, acc, PRECISION)
    # Not normalised yet: that takes the maxima and sums of all parts.
    part = (list_.to(tl.int64) * SPLITS + split) * G + g
    tl.store(part_high + part, high, mask=real)
    tl.store(part_total + part, total, mask=real)
    tl.store(part_acc + part[:, None] * D + d[None, :], acc, mask=real[:, None])


@triton.jit
def _decode_combine_kernel(
    part_acc,
    part_high,
    part_total,
    lens,
    out,
    token_stride,
    log_sums,
    heads,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    PART: tl.constexpr,
    KEEPS_SUMS: tl.constexpr,
):
    # Grid (lists,): a program adds up the parts of one list and normalises.
    list_ = tl.program_id(0).to(tl.int64)
    length = tl.load(lens + list_)
    size = _part_size(length, SPLITS, PART)
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    real = g < G
    high = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    for split in range(0, (length + size - 1) // size):
        part = (list_ * SPLITS + split) * G + g
        next_high = tl.load(part_high + part, mask=real, other=0.0)
        above = tl.maximum(high, next_high)
        # Bring both to the larger maximum before they are added. There is none yet where nothing was selected so far.
        base = tl.where(above == float("-inf"), 0.0, above)
        shrink, next_shrink = tl.exp2(high - base), tl.exp2(next_high - base)
        total = total * shrink + tl.load(part_total + part, mask=real, other=1.0) * next_shrink
        next_acc = tl.load(part_acc + part[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
        acc = acc * shrink[:, None] + next_acc * next_shrink[:, None]
        high = above
    total = tl.where(total == 0.0, 1.0, total)  # an empty list gives zeros
    if KEEPS_SUMS:
        tl.store(log_sums + list_ * G + g, high + tl.log2(total), mask=real)
    acc = acc / total[:, None]
    head_out = out + (list_ // heads) * token_stride + (list_ % heads) * G * D
    tl.store(head_out + g[:, None] * D + d[None, :], acc.to(out.dtype.element_ty), mask=real[:, None])


def decode_attention(
    queries: Tensor,
    cache: PagedCache,
    lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    scale: float,
    longest: int,
    launch: DecodeLaunch | None = None,
    *,
    scores: Tensor | None = None,
    log_sums: Tensor | None = None,
    selected: Tensor | None = None,
    chosen: ChosenPages | None = None,
) -> None:
    """Attention of one token a request to its lists.

    Args:
        queries: (requests, heads, group, head_dim), after RoPE; requests may be strided, the rest is contiguous.
            head_dim is a power of two from 16 to 256.
        cache: The cache.
        lens: (requests, heads) int32, contiguous, entries of each list; 0 gives zeros.
        block_table: (requests, heads, pages) int32, contiguous: `decode_update`'s.
        out: As queries; written.
        scale: Factor on the scores.
        longest: At least the entries of the longest list; sets the size of the launch, so under a CUDA graph it is the
            largest that can come.
        launch: How the launch is cut; None for the usual one.
        scores: (requests, heads, group, width) float32, contiguous, written as far as a list has entries: attention
            scores by place, times log2(e); those beyond the width are not written. None if nobody asks.
        log_sums: (requests, heads, group) float32, contiguous, written: log2 of the sum of 2^score of what a query head
            reads, so that 2^(score - log_sum) is the attention weight; of no meaning for lists without entries.
        selected: (requests, heads, group, width) bool, contiguous: what each query head reads. None for all.
        chosen: The same by pages, so that no other page is looked at; ``scores`` and ``selected`` do not go with it.
    """
    requests, heads, group, dim = queries.shape
    count = requests * heads
    assert lens.is_contiguous() and block_table.is_contiguous()  # noqa: PT018
    if not count:
        return
    if launch is None:
        launch = DecodeLaunch.of(queries.dtype, dim, cache.scales is not None).with_parts_for(count, longest)
    # The grid is sized by the longest list that can be; programs of parts that a list does not have return at once.
    splits = min(triton.cdiv(max(longest, 1), launch.part), MAX_PARTS)
    rows = max(triton.next_power_of_2(group), 16)  # the least that tl.dot takes
    # What each part leaves for the second kernel: weighted values, largest scores (base 2) and sums of weights.
    options = {"dtype": torch.float32, "device": queries.device}
    by_place = [tensor for tensor in (scores, selected) if tensor is not None]
    assert all(tensor.is_contiguous() for tensor in by_place)
    if chosen is not None:
        assert group < 32, "a bit of an int32 for each query head"
        lens = chosen.lens  # what follows counts the entries of the chosen pages
        # An address takes one more look-up, which the pipeline of the loop has to cover as well.
        launch = launch._replace(stages=launch.stages + 2)
    acc = torch.empty(count, splits, group, dim, **options)  # type: ignore[call-overload]
    high = torch.empty(count, splits, group, **options)  # type: ignore[call-overload]
    total = torch.empty_like(high)
    _decode_parts_kernel[(splits, count)](
        queries,
        queries.stride(0),
        cache.keys,
        cache.values,
        cache.keys.stride(0),
        lens,
        block_table,
        block_table.shape[-1],
        acc,
        high,
        total,
        acc if scores is None else scores,
        acc if selected is None else selected,
        by_place[0].shape[-1] if by_place else 0,
        lens if chosen is None else chosen.numbers,
        lens if chosen is None else chosen.readers,
        0 if chosen is None else chosen.numbers.shape[-1],
        scale * math.log2(math.e),
        heads,
        N=cache.keys.shape[1],
        D=dim,
        G=group,
        ROWS=rows,
        BLOCK=launch.block,
        SPLITS=splits,
        PART=launch.part,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        KEEPS_SCORES=scores is not None,
        SELECTS=selected is not None,
        scales=cache.keys if cache.scales is None else cache.scales,
        FP8=cache.scales is not None,
        CHOSEN=0 if chosen is None else chosen.size,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
    _decode_combine_kernel[(count,)](
        acc,
        high,
        total,
        lens,
        out,
        out.stride(0),
        acc if log_sums is None else log_sums,
        heads,
        D=dim,
        G=group,
        ROWS=triton.next_power_of_2(group),
        SPLITS=splits,
        PART=launch.part,
        KEEPS_SUMS=log_sums is not None,
        num_warps=4,
    )
