"""Adds the queries of a step to TriAttention's sums by kernels; imported on CUDA alone."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels import query_sums
from hyperscale.engines.vllm.worker.methods.queries.recorded_queries import RecordedQueries
from hyperscale.methods.triattention import QuerySums
from hyperscale.utils.device_copy import upload


class SummedQueries(RecordedQueries):
    """See the module."""

    def __init__(self, state: QuerySums) -> None:
        self._state = state
        self._slots = torch.zeros(0, dtype=torch.int64)
        self._rotation = torch.zeros(0)
        self._chunks: query_sums.ChunkPieces | None = None

    def begin_decode(self, slots: Tensor, positions: Tensor) -> None:
        """See `RecordedQueries.begin_decode`."""
        self._slots, self._rotation = slots, self._state.unrotation(positions)

    def add_decode(self, layer: int, queries: Tensor, scale: float) -> None:
        """See `RecordedQueries.add_decode`."""
        sums, sizes = self._state.sums[layer], self._state.sizes[layer]
        query_sums.add_decode_queries(sums, sizes, queries, self._slots, self._rotation)

    def begin_chunks(self, slots: Tensor, starts: Tensor, offsets: Sequence[int]) -> None:
        """See `RecordedQueries.begin_chunks`."""
        base, tokens = offsets[0], offsets[-1] - offsets[0]
        pieces, spans = query_sums.cut_chunks(offsets)
        sizes = [end - begin for begin, end in pairwise(offsets)]
        numbers = upload([number for part in (*pieces, *spans, sizes, offsets[:-1]) for number in part], slots.device)
        ends = [2 * len(pieces[0]), 2 * len(sizes), len(sizes), len(sizes)]
        piece_numbers, span_numbers, size_numbers, begins = torch.split(numbers, ends)
        request = torch.arange(len(sizes), device=slots.device)
        request = request.repeat_interleave(size_numbers, output_size=tokens)
        positions = torch.arange(base, base + tokens, device=slots.device) + (starts.long() - begins)[request]
        self._chunks = query_sums.ChunkPieces(
            slots, self._state.unrotation(positions), base, piece_numbers.view(2, -1), span_numbers.view(2, -1)
        )

    def add_chunks(self, layer: int, queries: Tensor, scale: float) -> None:
        """See `RecordedQueries.add_chunks`."""
        assert self._chunks is not None
        query_sums.add_chunk_queries(self._state.sums[layer], self._state.sizes[layer], queries, self._chunks)
