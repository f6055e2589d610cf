"""For rules that look at a row with the queries of the latest tokens when they cut it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.cache import RowEntries
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import Entrant, Host, Token
from hyperscale.methods.core.interval import IntervalMethod, IntervalState
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.row_budget import BudgetRule


def observed(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Scores of some queries on all entries of a row, for each head that shares its keys.

    Args:
        queries: (some, queries, query_heads, head_dim), after RoPE.
        keys: (some, kv_heads, slots, head_dim), after RoPE.
        scale: Factor on the scores.

    Returns:
        (some, kv_heads, group, queries, slots), before any mask and softmax.
    """
    some, count, _, dim = queries.shape
    heads, slots = keys.shape[1:3]
    grouped = queries.view(some, count, heads, -1, dim).permute(0, 2, 3, 1, 4)
    # One product a row: its rounding must not depend on how many rows there are.
    product = torch.bmm(grouped.reshape(some * heads, -1, dim), keys.reshape(some * heads, slots, dim).transpose(1, 2))
    return product.view(some, heads, -1, count, slots) * scale


class ObservedState(IntervalState):
    """The queries of the last w tokens. ``tensors[1]`` is (layers, slots, w, query_heads, head_dim).

    A row is cut when it holds more than w entries, so w queries have been seen by then; the query of position p is at
    index p mod w. Their tokens' entries are the newest w, which no cut takes.
    """

    def __init__(self, method: IntervalMethod, host: Host) -> None:
        super().__init__(method, host)
        self._window = method.recent
        self._shape = host.layers, host.slots, method.recent
        self._latest: dict[int, Tensor] = {}  # of the prompt last prefilled, by layer: (queries, query_heads, head_dim)
        self._ring = torch.zeros(*self._shape, 0, 0, device=host.device)
        self.tensors = (self._facts, self._ring)

    @abstractmethod
    def rank(self, queries: Tensor, ages: Tensor, rows: RowEntries) -> Tensor:
        """`rate`, by the latest queries.

        Args:
            queries: (some, w, query_heads, head_dim), after RoPE.
            ages: (some, w) int64, how many entries of the row are younger than each query.
            rows: The entries.
        """

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.cut_prompt`."""
        self._scale = view.scale
        self._latest[layer] = view.queries[:, -self._window :].transpose(0, 1).contiguous()
        return super().cut_prompt(layer, view)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`: the prompt's last queries are taken over."""
        super().admit(first, entrants, prompt)
        if not self._ring.numel():
            self._ring = self._latest[0].new_zeros(*self._shape, *self._latest[0].shape[1:])
            self.tensors = (self._facts, self._ring)
        count = len(self._latest[0])
        at = torch.arange(prompt.length - count, prompt.length, device=self._ring.device) % self._window
        for layer, queries in self._latest.items():
            self._ring[layer, first : first + len(entrants), at] = queries

    def slots(self, layer: int, token: Token) -> Tensor:
        """See `State.slots`."""
        positions = self.step.positions
        chains = torch.arange(len(positions), device=positions.device)
        self._ring[layer].index_put_((chains, positions % self._window), token.queries)
        return super().slots(layer, token)

    def rate(self, layer: int, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """See `IntervalState.rate`."""
        index = torch.arange(self._window, device=self._ring.device)
        if chains is None:
            return self.rank(self._latest[layer][None], self._window - 1 - index[None], rows)
        ages = (self.step.positions[chains, None] - 1 - index) % self._window
        return self.rank(self._ring[layer, chains], ages, rows)


class ObservedMethod(IntervalMethod):
    """What an entry is worth depends on the queries of the last ``window`` tokens, pooled over neighbouring entries.

    The window's own entries survive every cut.
    """

    def __init__(
        self, cr: float, rule: BudgetRule | None, window: int, pin_prompt: bool | None, interval: int, kernel: int
    ) -> None:
        if window < 1:
            raise MethodError(f"window of {self.name} must be at least 1, not {window}")
        super().__init__(cr, rule, window, pin_prompt, interval)
        if kernel < 1 or kernel % 2 == 0:
            raise MethodError(f"kernel of {self.name} must be odd and at least 1, not {kernel}")
        self.kernel = kernel

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        params = super().params()
        return {"window": params.pop("recent"), **params, "kernel": self.kernel}
