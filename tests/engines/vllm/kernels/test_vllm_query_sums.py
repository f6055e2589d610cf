"""Sums of queries by kernels, against sums in float64."""

import pytest
import torch
from interpreted import DEVICE, MARKS

from hyperscale.engines.vllm.kernels import query_sums

pytestmark = MARKS
SLOTS, HEADS, DIM = 7, 3, 32


def made(tokens, dtype, draw):
    """Queries as a strided part of a wider tensor, and factors."""
    wide = torch.randn(tokens, HEADS + 1, DIM, generator=draw).to(dtype).to(DEVICE)
    angle = 6.3 * torch.rand(tokens, DIM // 2, generator=draw)
    return wide[:, :HEADS], torch.polar(torch.ones_like(angle), angle).to(DEVICE)


def vectors(queries, rotation):
    """Queries with the rotation taken back, (tokens, heads, DIM / 2) complex128."""
    real, imaginary = queries.cpu().double().chunk(2, -1)
    return torch.complex(real, imaginary) * rotation.cpu().to(torch.complex128)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_those_of_all_queries(dtype):
    draw = torch.Generator().manual_seed(0)
    sums = torch.zeros(SLOTS, HEADS, DIM // 2, dtype=torch.complex64, device=DEVICE)
    sizes = torch.zeros(SLOTS, HEADS, DIM // 2, device=DEVICE)
    wanted = torch.zeros(SLOTS, HEADS, DIM // 2, dtype=torch.complex128)
    wanted_sizes = torch.zeros(SLOTS, HEADS, DIM // 2, dtype=torch.float64)
    # Chunks behind two decode steps: of one token, of several pieces, of just one piece, and a warm-up's.
    offsets, slots = [2, 3, 133, 197, 207], [4, 1, 5, 0]
    queries, rotation = made(207, dtype, draw)
    pieces, spans = query_sums.cut_chunks(offsets)
    chunks = query_sums.ChunkPieces(
        torch.tensor(slots, device=DEVICE),
        rotation[2:],
        2,
        torch.tensor(pieces, device=DEVICE),
        torch.tensor(spans, device=DEVICE),
    )
    for _ in range(2):
        query_sums.add_chunk_queries(sums, sizes, queries, chunks)
        for slot, begin, end in zip(slots[:-1], offsets, offsets[1:], strict=False):
            added = vectors(queries[begin:end], rotation[begin:end])
            wanted[slot] += added.sum(0)
            wanted_sizes[slot] += added.abs().sum(0)
        more, factors = made(5, dtype, draw)
        decoding = [3, 0, 1, 0, 6]
        query_sums.add_decode_queries(sums, sizes, more, torch.tensor(decoding, device=DEVICE), factors)
        for row, slot in enumerate(decoding):
            if slot:
                added = vectors(more[row : row + 1], factors[row : row + 1])[0]
                wanted[slot] += added
                wanted_sizes[slot] += added.abs()
    assert torch.allclose(sums.cpu().to(torch.complex128), wanted, atol=1e-4)
    assert torch.allclose(sizes.cpu().double(), wanted_sizes, atol=1e-4)
