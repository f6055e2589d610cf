"""Writes what a rule that prunes at intervals looks at of a step's queries into its state, by slot."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hyperscale.methods.core.interval import IntervalState, QueryTokens
from hyperscale.utils.device_copy import upload


class RecordedQueries(ABC):
    """Queries of a step's decode steps and of its chunks, on their way into a state whose chains are slots.

    First each part of the step is described, once for all layers; then its queries come, layer by layer.
    """

    @abstractmethod
    def begin_decode(self, slots: Tensor, positions: Tensor) -> None:
        """Decode steps begin.

        Args:
            slots: (requests,) int64; slot 0 is padding, and may be named more than once.
            positions: (requests,) int64; 0 for padding.
        """

    @abstractmethod
    def add_decode(self, layer: int, queries: Tensor, scale: float) -> None:
        """Queries of the decode steps, (requests, query heads, head_dim), after RoPE."""

    @abstractmethod
    def begin_chunks(self, slots: Tensor, starts: Tensor, offsets: Sequence[int]) -> None:
        """Chunks of prompts begin.

        Args:
            slots: (requests,) int64.
            starts: (requests,) int, position of each one's first token.
            offsets: Where each one's tokens begin in the batch, and where the last one's end.
        """

    @abstractmethod
    def add_chunks(self, layer: int, queries: Tensor, scale: float) -> None:
        """Queries of all tokens of the batch, (tokens, query heads, head_dim), after RoPE."""


class StateQueries(RecordedQueries):
    """By the state's own code in plain torch; of each chunk, the last few tokens alone."""

    def __init__(self, state: IntervalState, most: int) -> None:
        """Queries of a state.

        Args:
            state: The state.
            most: Tokens of a chunk, the last ones, that the rule looks at.
        """
        self._state, self._most = state, most
        self._decode: QueryTokens | None = None
        self._chunks: QueryTokens | None = None
        self._index: Tensor | None = None

    def begin_decode(self, slots: Tensor, positions: Tensor) -> None:
        """See `RecordedQueries.begin_decode`."""
        self._decode = self._state.place_queries(slots, positions)

    def add_decode(self, layer: int, queries: Tensor, scale: float) -> None:
        """See `RecordedQueries.add_decode`."""
        assert self._decode is not None
        self._state.record_queries(layer, queries, self._decode, scale)

    def begin_chunks(self, slots: Tensor, starts: Tensor, offsets: Sequence[int]) -> None:
        """See `RecordedQueries.begin_chunks`."""
        # How many tokens there are must be known on the host; which they are is worked out on the device.
        counts = [min(end - begin, self._most) for begin, end in pairwise(offsets)]
        passed = [end - count for end, count in zip(offsets[1:], counts, strict=True)]  # tokens of the batch before
        before = [sum(counts[:number]) for number in range(len(counts))]
        columns = upload([*counts, *passed, *before, *offsets[:-1]], slots.device).view(4, -1)
        request = torch.arange(len(counts), device=slots.device)
        request = request.repeat_interleave(columns[0], output_size=sum(counts))
        self._index = torch.arange(len(request), device=slots.device) + (columns[1] - columns[2])[request]
        positions = self._index + (starts.long() - columns[3])[request]
        self._chunks = self._state.place_queries(slots[request], positions)

    def add_chunks(self, layer: int, queries: Tensor, scale: float) -> None:
        """See `RecordedQueries.add_chunks`."""
        assert self._index is not None and self._chunks is not None  # noqa: PT018
        self._state.record_queries(layer, queries.index_select(0, self._index), self._chunks, scale)
