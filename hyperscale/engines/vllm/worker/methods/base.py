"""The contract of an eviction method on the worker's side: it sets expiries, the mechanism does the rest.

Every entry has an expiry, the first query position that no longer sees it. A method may give a new entry its expiry
(window), lower the expiry of a stored one when a verdict on it comes (DMS), or choose a victim and let it expire at
once (random). `hyperscale.engines.vllm.worker.reference_attention` calls the hooks in this order:

* decode step: `lower_expiries`, then one expired entry a list is overwritten, `decode_expiry`, `record_places`;
* chunk: `lower_expiries_before`, `chunk_expiry`, attention under the expiries, `order_after`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.tables import EntryTables


@dataclass(frozen=True)
class DecodeBatch:
    """The requests of one decode step in one layer.

    Attributes:
        layer: The layer.
        slots: (requests,) int64.
        positions: (requests,) int64, of the tokens being processed.
        lens: (requests, heads) int64, entries before anything is written.
        verdicts: (requests, heads) bool, DMS's verdict on the token before, or on the token itself
            (`Options.decision_offset`); None if the model has no gates.
    """

    layer: int
    slots: Tensor
    positions: Tensor
    lens: Tensor
    verdicts: Tensor | None


@dataclass(frozen=True)
class RequestChunk:
    """A chunk of one request's tokens in one layer.

    Attributes:
        layer: The layer.
        slot: The request's slot.
        start: Position of its first token.
        stop: Position after its last token.
        verdicts: (tokens, heads) bool, on the token before each, or on each; None if the model has no gates.
    """

    layer: int
    slot: int
    start: int
    stop: int
    verdicts: Tensor | None


@dataclass(frozen=True)
class EntryOrder:
    """Where a method that counts places in a list wants a request's entries after a chunk.

    Attributes:
        source: (heads, longest list) int64, for each place the entry that goes there: a place in the list as it was,
            or ``num_stored`` + the number of a token of the chunk.
        lens: (heads,) int64, entries of each list.
    """

    source: Tensor
    lens: Tensor


class WorkerMethod:
    """Keeps everything; what a method does not override it does not do.

    Attributes:
        counts_prompts: Whether the reads of prompts are counted, query by query: they are known in advance unless the
            rule evicts within a prompt.
    """

    counts_prompts: ClassVar[bool] = False

    def __init__(self, tables: EntryTables, options: Options) -> None:
        self.tables, self.options = tables, options

    @property
    def keeps_chunks(self) -> bool:
        """Whether nothing expires while a chunk is processed, so that lists are in order of position until it ends.

        It is asked of chunks of prompts alone: where one has decode steps in it, as after a preemption, a plan is made.
        """
        return type(self) is WorkerMethod

    def open_request(self, slot: int, prompt: int, L: int, noise_key: int) -> None:
        """A request has got a slot, and nothing of it has been processed."""

    def close_request(self, slot: int) -> None:
        """A request has lost its slot."""

    def flush(self) -> None:
        """All requests that open or close before the next step have done so."""

    def lower_expiries(self, batch: DecodeBatch) -> None:
        """Lower expiries of stored entries before a decode step looks for expired ones."""

    def decode_expiry(self, batch: DecodeBatch) -> Tensor | int:
        """Expiry of the entries that a decode step writes, (requests,) or (requests, heads), or one for all."""
        return NEVER

    def record_places(self, batch: DecodeBatch, places: Tensor) -> None:
        """Learn where a decode step wrote; (requests, heads) int64."""

    def lower_expiries_before(self, chunk: RequestChunk) -> None:
        """Lower expiries of stored entries before a chunk looks at them."""

    def chunk_expiry(self, chunk: RequestChunk) -> Tensor:
        """Expiry of the chunk's own entries, (heads, tokens) int32."""
        shape = (self.tables.heads, chunk.stop - chunk.start)
        return torch.full(shape, NEVER, dtype=torch.int32, device=self.tables.expiry.device)

    def order_after(self, chunk: RequestChunk, num_stored: int) -> EntryOrder | None:
        """Where entries are to lie after the chunk; None if any order will do.

        Args:
            chunk: The chunk.
            num_stored: Entries of the longest list before the chunk.
        """
        return None
