"""The contract of an eviction rule on the worker's side."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.tables import Lists


@dataclass(frozen=True)
class Rows:
    """The requests of one decode step in one layer.

    Attributes:
        layer: The layer.
        slots: (requests,) int64.
        positions: (requests,) int64, of the tokens being processed.
        lens: (requests, heads) int64, entries before anything is written.
        verdicts: (requests, heads) bool, DMS's verdict on the token before; None if the model has no gates.
    """

    layer: int
    slots: Tensor
    positions: Tensor
    lens: Tensor
    verdicts: Tensor | None


@dataclass(frozen=True)
class Span:
    """A chunk of one request's tokens in one layer.

    Attributes:
        layer: The layer.
        slot: The request's slot.
        start: Position of its first token.
        stop: Position after its last token.
        verdicts: (tokens, heads) bool, on the token before each; None if the model has no gates.
    """

    layer: int
    slot: int
    start: int
    stop: int
    verdicts: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Where a rule that counts slots wants a request's entries after a chunk.

    Attributes:
        source: (heads, most entries) int64, for each place the entry that goes there: a place in the list as it was, or
            ``have`` + the number of a token of the chunk.
        lens: (heads,) int64, entries of each list.
    """

    source: Tensor
    lens: Tensor


class Rule:
    """Keeps everything; what a rule does not override it does not do."""

    gated = False

    def __init__(self, lists: Lists, options: Options) -> None:
        self.lists, self.options = lists, options

    def lower(self, rows: Rows) -> None:
        """Lower expiries of stored entries before a decode step looks for expired ones."""

    def born(self, rows: Rows) -> Tensor | int:
        """Expiry of the entries that a decode step writes, (requests,) or one for all."""
        return NEVER

    def written(self, rows: Rows, places: Tensor) -> None:
        """Learn where a decode step wrote; (requests, heads) int64."""

    def lower_before(self, span: Span) -> None:
        """Lower expiries of stored entries before a chunk looks at them."""

    def born_in(self, span: Span) -> Tensor:
        """Expiry of the chunk's own entries, (heads, tokens) int32."""
        shape = (self.lists.heads, span.stop - span.start)
        return torch.full(shape, NEVER, dtype=torch.int32, device=self.lists.expiry.device)

    def layout(self, span: Span, have: int) -> Layout | None:
        """Where entries are to lie after the chunk; None if any order will do."""
        return None
