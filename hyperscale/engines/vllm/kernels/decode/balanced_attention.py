# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Decode attention over few lists, whose entries are dealt out evenly to as many programs as a GPU runs at once.

Where there are few lists, parts of equal length (`hyperscale.engines.vllm.kernels.decode_attention`) leave
multiprocessors without work: a hundred programs more than fit take as long again as all that fit. Here the lists are
laid end to end, cut in as many equal pieces as there are programs, and each program attends to its piece, which may
begin in one list and end in another. How long the lists are only the device knows: every program adds up all lengths,
which is why this is for few lists. The pieces of a list are added up by a second kernel, or by the last program of the
first one that is done with the list.
"""

import math
from functools import cache as remember
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChosenPages, PagedCache
from hyperscale.engines.vllm.kernels.common import softmax_scores
from hyperscale.engines.vllm.kernels.fp8 import load_entries

MOST_LISTS = 1024  # whose lengths a program adds up at once
FEW_LISTS = 1024  # up to which this kernel is the one to take
_PROGRAMS_ON_CPU = 6  # where kernels are interpreted
_SHORT_BLOCKS = 64  # lists up to which shorter blocks fill the card better
_FUSED_LISTS = 512  # lists up to which a second launch takes longer than it saves


class BalancedLaunch(NamedTuple):
    """How a launch is cut.

    Attributes:
        programs: Of a multiprocessor.
        block: Entries of a step of a piece's loop; pieces are whole numbers of these.
        warps: Of a program.
        stages: Of the loop's software pipeline, see `decode_attention.DecodeLaunch`.
        fused: Whether the last program that is done with a list adds up its pieces; else a second kernel does.
    """

    programs: int
    block: int
    warps: int
    stages: int
    fused: bool = False

    @classmethod
    def of(cls, dtype: torch.dtype, dim: int, lists: int, fp8: bool = False) -> "BalancedLaunch":
        """The usual one for so many lists; measured on an H200 (``results/measurements/vllm.md``)."""
        if dtype == torch.float32 or dim > 128:
            return cls(1, 32, 4, 3, fused=True)
        block = 64 if dim <= 64 or fp8 or lists > _SHORT_BLOCKS else 32
        return cls(2, block, 4, 5, fused=lists <= _FUSED_LISTS)


@triton.jit
def _list_ends(lens, count, BLOCK: tl.constexpr, LISTS: tl.constexpr):
    """Blocks of each list, and of all lists up to and with it, (LISTS,) each."""
    index = tl.arange(0, LISTS)
    blocks = (tl.load(lens + index, mask=index < count, other=0) + BLOCK - 1) // BLOCK
    return blocks, tl.cumsum(blocks, 0)


@triton.jit
def _sum_pieces(
    first, last, list_, part_acc, part_high, part_total, D: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr
):
    """Attention of a list from its pieces, those of programs from ``first`` to before ``last``, (ROWS, D)."""
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    real = g < G
    high = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    for program in range(first, last):
        part = (list_ + program).to(tl.int64) * G + g
        # Not from a multiprocessor's own cache, which does not see what other programs of the same kernel write.
        next_high = tl.load(part_high + part, mask=real, other=0.0, cache_modifier=".cg")
        next_total = tl.load(part_total + part, mask=real, other=1.0, cache_modifier=".cg")
        at = part[:, None] * D + d[None, :]
        next_acc = tl.load(part_acc + at, mask=real[:, None], other=0.0, cache_modifier=".cg")
        above = tl.maximum(high, next_high)
        base = tl.where(above == float("-inf"), 0.0, above)  # a query head that has read nothing so far
        shrink, next_shrink = tl.exp2(high - base), tl.exp2(next_high - base)
        total = total * shrink + next_total * next_shrink
        acc = acc * shrink[:, None] + next_acc * next_shrink[:, None]
        high = above
    return acc / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def _pieces_kernel(
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
    scale,
    heads,
    count,
    scales,
    out,
    out_stride,
    done,
    chosen,
    readers,
    chosen_stride,
    N: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LISTS: tl.constexpr,
    PRECISION: tl.constexpr,
    FP8: tl.constexpr,
    FUSED: tl.constexpr,
    CHOSEN: tl.constexpr,
):
    # Grid (programs,): a program attends to one piece of all lists laid end to end.
    program, programs = tl.program_id(0), tl.num_programs(0)
    blocks, ends = _list_ends(lens, count, BLOCK, LISTS)
    total_blocks = tl.sum(blocks, 0)
    share = (total_blocks + programs - 1) // programs
    place = program * share
    stop = tl.minimum(place + share, total_blocks)
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    real = g < G
    list_ = tl.sum((ends <= place).to(tl.int32), 0)  # the list in which the piece begins
    while place < stop:
        mine = tl.arange(0, LISTS) == list_
        list_end = tl.sum(tl.where(mine, ends, 0), 0)
        list_begin = list_end - tl.sum(tl.where(mine, blocks, 0), 0)
        until = tl.minimum(stop, list_end)
        length = tl.load(lens + list_)
        head_queries = queries + (list_ // heads).to(tl.int64) * token_stride + (list_ % heads) * G * D
        q = tl.load(head_queries + g[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
        pages = block_table + list_.to(tl.int64) * block_stride
        high = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        acc = tl.zeros((ROWS, D), tl.float32)
        for block in range(place - list_begin, until - list_begin):
            index = block * BLOCK + tl.arange(0, BLOCK)
            inside = index < length
            visible = inside[None, :]
            if CHOSEN > 0:  # ``index`` counts the entries of chosen pages, of CHOSEN entries each
                rank = list_.to(tl.int64) * chosen_stride + index // CHOSEN
                bits = tl.load(readers + rank, mask=inside, other=0)
                visible = ((bits[None, :] >> g[:, None]) & 1) != 0
                index = tl.load(chosen + rank, mask=inside, other=0) * CHOSEN + index % CHOSEN
            page = tl.load(pages + index // N, mask=inside, other=0).to(tl.int64)
            k, v = load_entries(keys, values, scales, page, index % N, inside, page_stride, D, q.dtype, FP8)
            scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
            high, total, acc = softmax_scores(scores, v, visible, high, total, acc, PRECISION)
        # From one piece to the next either the program or the list is another, so no two have the same sum.
        part = (list_ + program).to(tl.int64) * G + g
        tl.store(part_high + part, high, mask=real)
        tl.store(part_total + part, total, mask=real)
        tl.store(part_acc + part[:, None] * D + d[None, :], acc, mask=real[:, None])
        if FUSED:
            first, last = list_begin // share, (list_end + share - 1) // share
            tl.debug_barrier()  # all of the program's threads have stored
            # A list without entries may be passed as well, and nothing of it is to be added up.
            if list_end > list_begin:  # noqa: SIM102
                if tl.atomic_add(done + list_, 1, sem="acq_rel", scope="gpu") == last - first - 1:
                    tl.store(done + list_, 0)  # for the next launch
                    result = _sum_pieces(first, last, list_, part_acc, part_high, part_total, D, G, ROWS)
                    head_out = out + (list_ // heads).to(tl.int64) * out_stride + (list_ % heads) * G * D
                    at = head_out + g[:, None] * D + d[None, :]
                    tl.store(at, result.to(out.dtype.element_ty), mask=real[:, None])
        place = until
        list_ += 1
    if FUSED:  # nobody comes to a list without entries, whose attention is zeros
        for empty in range(program, count, programs):
            if tl.load(lens + empty) == 0:
                request = (tl.zeros((), tl.int64) + empty) // heads
                head_out = out + request * out_stride + (empty % heads) * G * D
                zeros = tl.zeros((ROWS, D), out.dtype.element_ty)
                tl.store(head_out + g[:, None] * D + d[None, :], zeros, mask=real[:, None])


@triton.jit
def _sum_pieces_kernel(
    part_acc,
    part_high,
    part_total,
    lens,
    out,
    token_stride,
    heads,
    count,
    programs,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LISTS: tl.constexpr,
):
    # Grid (lists,): a program adds up the pieces of one list and normalises.
    list_ = tl.program_id(0)
    blocks, ends = _list_ends(lens, count, BLOCK, LISTS)
    share = tl.maximum((tl.sum(blocks, 0) + programs - 1) // programs, 1)
    mine = tl.arange(0, LISTS) == list_
    list_end = tl.sum(tl.where(mine, ends, 0), 0)
    list_begin = list_end - tl.sum(tl.where(mine, blocks, 0), 0)
    # A list without entries has no pieces, and gives zeros.
    last = (list_end + share - 1) // share * (list_end > list_begin)
    result = _sum_pieces(list_begin // share, last, list_, part_acc, part_high, part_total, D, G, ROWS)
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    head_out = out + (list_ // heads).to(tl.int64) * token_stride + (list_ % heads) * G * D
    tl.store(head_out + g[:, None] * D + d[None, :], result.to(out.dtype.element_ty), mask=(g < G)[:, None])


def balanced_attention(
    queries: Tensor,
    cache: PagedCache,
    lens: Tensor,
    block_table: Tensor,
    out: Tensor,
    done: Tensor,
    scale: float,
    launch: BalancedLaunch | None = None,
    *,
    chosen: ChosenPages | None = None,
) -> None:
    """Attention of one token a request to its lists; lengths need not be known on the host, under a CUDA graph either.

    Args:
        queries: (requests, heads, group, head_dim), after RoPE; requests may be strided, the rest is contiguous.
            head_dim is a power of two from 16 to 256.
        cache: The cache.
        lens: (requests, heads) int32, contiguous, entries of each list, of `MOST_LISTS` lists at most; 0 gives zeros.
        block_table: (requests, heads, pages) int32, contiguous: `decode_update`'s.
        out: As queries; written.
        done: int32, as many as there are lists or more, zeros between two launches: kept by the caller, made once.
            Counts the programs that are done with each list.
        scale: Factor on the scores.
        launch: How the launch is cut; None for the usual one.
        chosen: The pages that are read, and by which query heads; None for all that is in the lists.
    """
    requests, heads, group, dim = queries.shape
    count = requests * heads
    assert lens.is_contiguous() and block_table.is_contiguous() and done.is_contiguous()  # noqa: PT018
    assert count <= min(MOST_LISTS, done.numel())
    if not count:
        return
    launch = launch or BalancedLaunch.of(queries.dtype, dim, lens.numel(), cache.scales is not None)
    if chosen is not None:
        assert group < 32, "a bit of an int32 for each query head"
        lens = chosen.lens  # what follows counts the entries of the chosen pages
        # An address takes one more look-up, which the pipeline of the loop has to cover as well.
        launch = launch._replace(stages=launch.stages + 2)
    programs = launch.programs * _processors(queries.device)
    options = {"dtype": torch.float32, "device": queries.device}
    # What each piece leaves for the second kernel: weighted values, largest scores (base 2) and sums of weights.
    acc = torch.empty(count + programs, group, dim, **options)  # type: ignore[call-overload]
    high = torch.empty(count + programs, group, **options)  # type: ignore[call-overload]
    total = torch.empty_like(high)
    lists = max(triton.next_power_of_2(count), 16)
    _pieces_kernel[(programs,)](
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
        scale * math.log2(math.e),
        heads,
        count,
        cache.keys if cache.scales is None else cache.scales,
        out,
        out.stride(0),
        done,
        lens if chosen is None else chosen.numbers,
        lens if chosen is None else chosen.readers,
        0 if chosen is None else chosen.numbers.shape[-1],
        N=cache.keys.shape[1],
        D=dim,
        G=group,
        ROWS=max(triton.next_power_of_2(group), 16),  # the least that tl.dot takes
        BLOCK=launch.block,
        LISTS=lists,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        FP8=cache.scales is not None,
        FUSED=launch.fused,
        CHOSEN=0 if chosen is None else chosen.size,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
    if launch.fused:
        return
    _sum_pieces_kernel[(count,)](
        acc,
        high,
        total,
        lens,
        out,
        out.stride(0),
        heads,
        count,
        programs,
        D=dim,
        G=group,
        ROWS=triton.next_power_of_2(group),
        BLOCK=launch.block,
        LISTS=lists,
        num_warps=4,
    )


@remember
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _PROGRAMS_ON_CPU
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
