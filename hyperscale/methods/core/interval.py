"""For rules that let rows fill up to their budget and then cut them, instead of giving up one entry a step."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.cache import RowEntries
from hyperscale.methods.core.base import DecodeStep, Host, Token
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.row_budget import BudgetRule

_LARGEST_CUT = 8  # A cut takes at most one entry in so many of the budget.


class IntervalState(BudgetedState):
    """Rows that only grow between two cuts.

    So slots are in order of position at all times, the newest entries in a row's last live slots, and all rows of a
    chain hold equally many. A subclass says which entries are worth keeping (`rate`), of a prompt as of a full row.
    """

    def __init__(self, method: "IntervalMethod", host: Host) -> None:
        super().__init__(method, host)
        self._interval = method

    @abstractmethod
    def rate(self, layer: int, rows: RowEntries, chains: Tensor | None) -> Tensor:
        """How much each entry is worth keeping, the more the better; among equals the older stays.

        Args:
            layer: Layer index.
            rows: Entries of some chains, in order of position.
            chains: (some,) int64, their numbers; None if the only one is a prompt that has just been prefilled.

        Returns:
            (some, kv_heads, slots) float32; of no meaning where nothing lives.
        """

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.cut_prompt`: a prompt with no room for the first generated token is cut like any full row."""
        budget = self._interval.room(view.length, view.max_new_tokens) + 1
        if view.length < budget:
            return None, None
        live = torch.ones(1, *view.keys.shape[:2], dtype=torch.bool, device=view.keys.device)
        scores = self.rate(layer, RowEntries(view.keys[None], view.values[None], live), None)
        one = torch.ones(1, dtype=torch.int64, device=live.device)
        return self._best(scores, live, one * budget, one * 0)[0], None  # no pinned prompt is longer than its budget

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        self.step = step

    def slots(self, layer: int, token: Token) -> Tensor:
        """See `State.slots`: rows with no room have been cut before."""
        return self.step.lens[layer]

    def chains_to_prune(self, step: DecodeStep) -> Tensor:
        """See `State.chains_to_prune`."""
        self.step = step
        self._limit = self.budget(step)
        return step.lens[0, :, 0] >= self._limit

    def prune(self, layer: int, chains: Tensor, rows: RowEntries) -> Tensor:
        """See `State.prune`."""
        scores = self.rate(layer, rows, chains)
        return self._best(scores, rows.live, self._limit[chains], self.pinned(self.step)[chains])

    def _best(self, scores: Tensor, live: Tensor, budget: Tensor, pinned: Tensor) -> Tensor:
        """What stays of full rows, as `prune`; budget and pinned are (some,)."""
        recent = self._interval.recent
        slot = torch.arange(scores.shape[2], device=scores.device)
        safe = (slot < pinned[:, None, None]) | (slot >= live.sum(-1, keepdim=True) - recent)
        order = scores.masked_fill(safe, float("inf")).masked_fill(~live, float("-inf"))
        order = order.argsort(dim=-1, descending=True, stable=True)
        cut = (budget // _LARGEST_CUT).clamp(1, self._interval.interval)
        count = torch.maximum(budget - cut, pinned + recent)[:, None, None]
        return torch.zeros_like(live).scatter_(-1, order, (slot < count).expand_as(order))


class IntervalMethod(BudgetedMethod):
    """Cuts a row that is about to outgrow its budget B down to B - min(interval, B // 8), at least by 1.

    The newest ``recent`` entries and, with ``pin_prompt``, the prompt survive every cut; F counts them and what a cut
    takes on top of them, so that rows in which nearly all is safe are not cut at every step. A prompt with no room for
    the first generated token is cut once after its dense prefill. Papers that cut every so many tokens call B what is
    left by a cut; here B is the ceiling, so that no row ever exceeds it, and the cut is at most an eighth of it (128 of
    1024, say), so that rows of small budgets do not stand half empty.
    """

    def __init__(
        self,
        cr: float = 8.0,
        rule: BudgetRule | None = None,
        recent: int = 16,
        pin_prompt: bool | None = None,
        interval: int = 128,
    ) -> None:
        super().__init__(cr, rule, recent, pin_prompt)
        if interval < 1:
            raise MethodError(f"interval of {self.name} must be at least 1, not {interval}")
        self.interval = interval

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        return {**super().params(), "interval": self.interval}

    def always(self, prompt: int) -> int:
        """See `BudgetedMethod.always`."""
        safe = super().always(prompt)
        return safe + min(max(safe // (_LARGEST_CUT - 1), 1), self.interval)  # a cut of the sum takes the second part
