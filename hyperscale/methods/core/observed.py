"""Base of methods that rank the entries of a row by the queries of the latest tokens."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.base import Entrant, HostModel
from hyperscale.methods.core.interval import IntervalMethod, IntervalState, QueryTokens
from hyperscale.methods.core.prefill_view import PrefillView


@dataclass(frozen=True)
class RecentQueries:
    """The queries of the last w tokens of some chains.

    Attributes:
        vectors: (batch, w, query_heads, head_dim), after RoPE, in any order.
        ages: (batch, w) int64, how many entries of the row are younger than each query.
        scale: Factor on the attention scores.
    """

    vectors: Tensor
    ages: Tensor
    scale: float

    def logits(self, keys: Tensor) -> Tensor:
        """Attention scores on all entries of a row, before any mask and softmax.

        Args:
            keys: (batch, kv_heads, entries, head_dim), after RoPE.

        Returns:
            (batch, kv_heads, group, w, entries), for each query head that shares the keys.
        """
        batch, count, _, dim = self.vectors.shape
        heads, entries = keys.shape[1:3]
        by_head = self.vectors.view(batch, count, heads, -1, dim).permute(0, 2, 3, 1, 4)
        # One product a row: its rounding must not depend on how many rows there are.
        product = torch.bmm(
            by_head.reshape(batch * heads, -1, dim), keys.reshape(batch * heads, entries, dim).transpose(1, 2)
        )
        return product.view(batch, heads, -1, count, entries) * self.scale


class ObservedState(IntervalState):
    """The queries of the last w tokens. ``tensors[1]`` is (layers, max_chains, w, query_heads, head_dim).

    A row is pruned when it holds more than w entries, so w queries have been seen by then; the query of position p is
    at index p mod w. Their tokens' entries are the newest w, which no pruning takes.
    """

    method: "ObservedMethod"

    def __init__(self, method: "ObservedMethod", host: HostModel) -> None:
        super().__init__(method, host)
        self._window = method.window
        self._shape = host.layers, host.max_chains, method.window
        attention: Any = host.attentions[0]
        self._query_shape = host.config.num_attention_heads, attention.head_dim
        self._dtype = host.dtype
        # Of the prompt prefilled last, by layer: its last queries, (w or fewer, query_heads, head_dim).
        self._prompt_queries: dict[int, Tensor] = {}
        self._ring = torch.zeros(*self._shape, 0, 0, device=host.device)  # gets its heads' sizes with the first prompt
        self.tensors = (self._facts, self._ring)

    def reserve(self, slots: int, tokens: int) -> None:
        """See `State.reserve`."""
        self._ring = torch.zeros(*self._shape, *self._query_shape, dtype=self._dtype, device=self._ring.device)
        self.tensors = (self._facts, self._ring)

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.prune_prompt`."""
        self._scale = view.scale
        self._prompt_queries[layer] = view.queries[:, -self._window :].transpose(0, 1).contiguous()
        return super().prune_prompt(layer, view)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`: the prompt's last queries are taken over."""
        super().admit(first, entrants, prompt)
        if not self._ring.numel():
            self._ring = self._prompt_queries[0].new_zeros(*self._shape, *self._prompt_queries[0].shape[1:])
            self.tensors = (self._facts, self._ring)
        count = len(self._prompt_queries[0])
        index = torch.arange(prompt.length - count, prompt.length, device=self._ring.device) % self._window
        for layer, queries in self._prompt_queries.items():
            self._ring[layer, first : first + len(entrants), index] = queries

    def place_queries(self, chains: Tensor, positions: Tensor) -> QueryTokens:
        """See `IntervalState.place_queries`: places in the rings of all chains, counted through."""
        return QueryTokens(chains, positions, chains * self._window + positions % self._window)

    def record_queries(self, layer: int, queries: Tensor, tokens: QueryTokens, scale: float) -> None:
        """See `IntervalState.record_queries`; each query takes the place of the oldest."""
        self._scale = scale
        self._ring[layer].flatten(0, 1).index_copy_(0, tokens.places, queries)

    def score_rows(self, layer: int | Tensor, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """See `IntervalState.score_rows`."""
        index = torch.arange(self._window, device=self._ring.device)
        if chains is None:  # a prompt, whose last w queries are in order
            assert isinstance(layer, int)
            queries = RecentQueries(self._prompt_queries[layer][None], self._window - 1 - index[None], self._scale)
        else:
            # The row's newest entry has position q - 1, as the step of position q has not begun.
            ages = (self.step.positions[chains, None] - 1 - index) % self._window
            queries = RecentQueries(self._ring[layer, chains], ages, self._scale)
        return self.method.score(rows, queries)


@dataclass
class ObservedMethod(IntervalMethod):
    """Keeps, at every pruning, the newest ``window`` entries and those with the highest `score` by their queries.

    Parameters:
        window: w, the number of latest queries; their own entries survive every pruning.
        kernel: Neighbouring entries that are pooled, an odd number.
    """

    state = ObservedState

    recent: int = field(init=False)  # no parameter: the recent entries are the window
    window: int = 16
    kernel: int = 5

    def __post_init__(self) -> None:
        if self.window < 1:
            raise MethodError(f"window of {self.name} must be at least 1, not {self.window}")
        self.recent = self.window
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise MethodError(f"kernel of {self.name} must be odd and at least 1, not {self.kernel}")

    def prompt_queries(self, prompt: int) -> int:
        """See `Method.prompt_queries`: the window's."""
        return self.window

    @abstractmethod
    def score(self, rows: RowEntries, queries: RecentQueries) -> Tensor:
        """How much each entry is worth keeping, as `ScoredMethod.score`, by the latest queries.

        Args:
            rows: Keys, after RoPE, and values, (batch, kv_heads, entries, head_dim) each, in order of position, and
                which of them live, (batch, kv_heads, entries).
            queries: The latest queries.

        Returns:
            (batch, kv_heads, entries) float32; of no meaning where nothing lives, nor in the window.
        """
