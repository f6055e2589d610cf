# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Sums of queries and of their absolute values, for TriAttention: one launch a layer in decode steps, two for chunks.

A query's entries f and f + head_dim / 2 are one complex number, which RoPE has rotated; a factor takes that back. Sums
are by slot and query head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIECE = 64  # tokens of a chunk that a program adds up


@dataclass(frozen=True)
class ChunkPieces:
    """The chunks of a step, cut into pieces of up to `_PIECE` tokens.

    Attributes:
        slots: (chunks,) int64.
        rotation: (tokens of the chunks, head_dim / 2) complex64, the factor on each token's query.
        base: The chunks' first token in the batch.
        pieces: (2, pieces) int64: first token of each piece, counted from ``base``, and number of its tokens.
        spans: (2, chunks) int64: each chunk's first piece and number of pieces.
    """

    slots: Tensor
    rotation: Tensor
    base: int
    pieces: Tensor
    spans: Tensor


def cut_chunks(offsets: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """``pieces`` and ``spans`` of `ChunkPieces`, from where each chunk begins and the last one ends in the batch."""
    first: list[int] = []
    count: list[int] = []
    span_first: list[int] = []
    span_count: list[int] = []
    for begin, end in pairwise(offsets):
        span_first.append(len(first))
        for start in range(begin, end, _PIECE):
            first.append(start - offsets[0])
            count.append(min(_PIECE, end - start))
        span_count.append(len(first) - span_first[-1])
    return [first, count], [span_first, span_count]


@triton.jit
def _unrotate(queries, rotation, D2: tl.constexpr):
    """Real and imaginary part of queries, (…, D2) pointers to the first of each pair and to its factor."""
    real, imaginary = tl.load(queries).to(tl.float32), tl.load(queries + D2).to(tl.float32)
    cosine, sine = tl.load(rotation), tl.load(rotation + 1)
    return real * cosine - imaginary * sine, real * sine + imaginary * cosine


@triton.jit
def _decode_sums_kernel(queries, token_stride, slots, rotation, sums, sizes, heads, D2: tl.constexpr):
    # Grid (requests, query heads).
    request, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + request)
    if slot == 0:  # padding
        return
    f = tl.arange(0, D2)
    real, imaginary = _unrotate(
        queries + request * token_stride + head * 2 * D2 + f, rotation + 2 * (request * D2 + f), D2
    )
    at = (slot * heads + head) * D2 + f
    tl.store(sums + 2 * at, tl.load(sums + 2 * at) + real)
    tl.store(sums + 2 * at + 1, tl.load(sums + 2 * at + 1) + imaginary)
    tl.store(sizes + at, tl.load(sizes + at) + tl.sqrt(real * real + imaginary * imaginary))


@triton.jit(do_not_specialize=["num_pieces"])
def _piece_sums_kernel(
    queries, token_stride, rotation, pieces, num_pieces, partial, heads, D2: tl.constexpr, PIECE: tl.constexpr
):
    # Grid (pieces, query heads): a program adds up one piece of one head.
    piece, head = tl.program_id(0), tl.program_id(1)
    token, f = tl.arange(0, PIECE)[:, None], tl.arange(0, D2)[None, :]
    inside = token < tl.load(pieces + num_pieces + piece)
    # Lanes behind the piece's end read its first token once more, and count as 0.
    index = tl.load(pieces + piece) + tl.where(inside, token, 0)
    real, imaginary = _unrotate(queries + index * token_stride + head * 2 * D2 + f, rotation + 2 * (index * D2 + f), D2)
    real, imaginary = tl.where(inside, real, 0.0), tl.where(inside, imaginary, 0.0)
    at = partial + (piece.to(tl.int64) * heads + head) * 3 * D2 + tl.arange(0, D2)
    tl.store(at, tl.sum(real, 0))
    tl.store(at + D2, tl.sum(imaginary, 0))
    tl.store(at + 2 * D2, tl.sum(tl.sqrt(real * real + imaginary * imaginary), 0))


@triton.jit(do_not_specialize=["chunks"])
def _fold_sums_kernel(slots, spans, chunks, partial, sums, sizes, heads, D2: tl.constexpr):
    # Grid (chunks, query heads): pieces are added in their order, so that the sums do not depend on the GPU's.
    chunk, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + chunk)
    if slot == 0:
        return
    f = tl.arange(0, D2)
    at = (slot * heads + head) * D2 + f
    real, imaginary, size = tl.load(sums + 2 * at), tl.load(sums + 2 * at + 1), tl.load(sizes + at)
    first = tl.load(spans + chunk)
    for piece in range(first, first + tl.load(spans + chunks + chunk)):
        part = partial + (piece * heads + head) * 3 * D2 + f
        real += tl.load(part)
        imaginary += tl.load(part + D2)
        size += tl.load(part + 2 * D2)
    tl.store(sums + 2 * at, real)
    tl.store(sums + 2 * at + 1, imaginary)
    tl.store(sizes + at, size)


def add_decode_queries(sums: Tensor, sizes: Tensor, queries: Tensor, slots: Tensor, rotation: Tensor) -> None:
    """Add one query of each request.

    Args:
        sums: (slots, query heads, head_dim / 2) complex64, contiguous; changed.
        sizes: As sums, float32; changed.
        queries: (requests, query heads, head_dim), after RoPE; requests may be strided.
        slots: (requests,) int64, each once; slot 0 is padding.
        rotation: (requests, head_dim / 2) complex64, contiguous, the factor on each request's query.
    """
    requests, heads, dim = queries.shape
    if requests:
        _decode_sums_kernel[(requests, heads)](
            queries,
            queries.stride(0),
            slots,
            torch.view_as_real(rotation),
            torch.view_as_real(sums),
            sizes,
            heads,
            D2=dim // 2,
            num_warps=1,
        )


def add_chunk_queries(sums: Tensor, sizes: Tensor, queries: Tensor, chunks: ChunkPieces) -> None:
    """Add all queries of chunks.

    Args:
        sums: As in `add_decode_queries`.
        sizes: Likewise.
        queries: (tokens, query heads, head_dim) of the whole batch, after RoPE; tokens may be strided.
        chunks: The chunks, each of a request of its own.
    """
    (_, heads, dim), num_pieces = queries.shape, chunks.pieces.shape[1]
    partial = torch.empty(num_pieces, heads, 3, dim // 2, dtype=torch.float32, device=queries.device)
    _piece_sums_kernel[(num_pieces, heads)](
        queries[chunks.base :],
        queries.stride(0),
        torch.view_as_real(chunks.rotation),
        chunks.pieces,
        num_pieces,
        partial,
        heads,
        D2=dim // 2,
        PIECE=_PIECE,
        num_warps=4,
    )
    count = len(chunks.slots)
    _fold_sums_kernel[(count, heads)](
        chunks.slots,
        chunks.spans,
        count,
        partial,
        torch.view_as_real(sums),
        sizes,
        heads,
        D2=dim // 2,
        num_warps=1,
    )
