"""H2O: the newest entries, and those that have been attended to most in all."""

from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import DecodeStep, Host, State
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.prefill_view import PrefillView, top_entries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.victim import VictimState


class _HeavyHitters(VictimState):
    """The score of a slot is what its entry was attended to in all."""

    def __init__(self, method: "H2O", host: Host) -> None:
        super().__init__(method, host, scored=True)
        self._h2o = method

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        scores = view.received()
        room = self._h2o.room(view.length, view.max_new_tokens)
        if view.length <= room:
            return None, scores
        # No pinned prompt is longer than its room. The first generated token is one of the recent.
        recent = self._h2o.window(torch.tensor(room + 1), torch.tensor(0))
        return top_entries(scores, room, newest=int(recent) - 1), scores

    def begin(self, step: DecodeStep) -> None:
        super().begin(step)
        self.recent = self._h2o.window(self.budget(DecodeStep(step.positions + 1, step.lens)), self.first)

    def observe(self, layer: int, weights: Tensor) -> None:
        chains, _, _, width = weights.shape
        score = self.score[layer, :chains, :, :width]
        score += weights.sum(2)
        self.condemn(layer, score)


class H2O(BudgetedMethod):
    """Heavy-Hitter Oracle: when the budget B is full, the old entry with the least attention in all leaves.

    With a_t(i) the weight that query t gives to entry i, summed over the query heads that share it, entry i scores
    F_t(i) = sum over s = i … t of a_s(i), the prompt's queries included. Of the entries live at t, those older than the
    window of token t + 1 may leave for it, and argmin_i F_t(i) does. The window is B less ``heavy`` * B, half of B by
    default and at least 1 (of a pinned prompt's budget, half of what lies beyond the prompt). The prompt is prefilled
    densely; if it is longer than B, its newest entries and the heaviest of the others stay.

    The reference code knows no groups of query heads. It cuts the cache back to B after the new entry was read, so it
    reads B + 1; here no step reads more than B. Its two halves are shares of the *prompt*, a ratio each; here they are
    shares of B.
    """

    name = "h2o"
    summary = "keeps the newest entries and those attended to most in all"
    source = "Zhang et al. 2023, arXiv 2306.14048; budget (P + L) / CR of arXiv 2506.05345"
    needs_attention = True
    default_rule = "fixed"
    default_pin = False

    def __init__(
        self, cr: float = 8.0, rule: BudgetRule | None = None, pin_prompt: bool | None = None, heavy: float = 0.5
    ) -> None:
        super().__init__(cr, rule, 1, pin_prompt)
        if not 0 <= heavy <= 1:
            raise MethodError(f"heavy of {self.name} must be a share between 0 and 1, not {heavy}")
        self.heavy = heavy

    def params(self) -> dict[str, Any]:
        """See `Method.params`; the recent entries are a share of the budget, not a number."""
        return {name: value for name, value in super().params().items() if name != "recent"} | {"heavy": self.heavy}

    def window(self, budget: Tensor, pinned: Tensor) -> Tensor:
        """How many of the newest entries are safe, of a budget and the pinned entries in it, int64 each."""
        free = budget - pinned
        return (free - (free.to(torch.float64) * self.heavy).to(torch.int64)).clamp(min=1)

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _HeavyHitters(self, host)
