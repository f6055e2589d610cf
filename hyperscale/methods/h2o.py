"""H2O: keeps the newest entries, and those that have been attended to most in all."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import HostModel
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.prefill_view import PrefillView, top_entries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.victim import VictimState


class _HeavyHitters(VictimState):
    """The score of a slot is the attention that its entry has received in all."""

    capturable = True
    method: "H2O"

    def __init__(self, method: "H2O", host: HostModel) -> None:
        super().__init__(method, host, scored=True)

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        return self.prune_prompt_layers(range(layer, layer + 1), view)

    def prune_prompt_layers(self, layers: range, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        # The same rule in all layers, of which the view may be one or several.
        scores = view.received()
        room = self.method.room(view.length, view.L)
        if view.length <= room:
            return None, scores
        # No pinned prompt is longer than its room. The first generated token is one of the recent entries.
        recent = self.method.window(torch.tensor(room + 1), torch.tensor(0))
        return top_entries(scores, room, newest=int(recent) - 1), scores

    def recent_at(self, floor: Tensor, position: Tensor, first: Tensor) -> Tensor:
        return self.method.window(self.method.row_budget(floor, position + 1), first)


@dataclass
class H2O(BudgetedMethod):
    """Heavy-Hitter Oracle: when the budget B is full, the old entry with the least attention in all leaves.

    With a_t(i) the weight that query t gives to entry i, summed over the query heads that share it,
      score_t(i) = sum over s = i … t of a_s(i),
    the prompt's queries included. Of the entries live at t, those older than the window of token t + 1 may leave for
    it, and argmin_i score_t(i) does. The window is B less ``heavy`` * B, half of B by default and at least 1 (of a
    pinned prompt's budget, half of what lies beyond the prompt). The prompt is prefilled densely; if it is longer than
    B, its newest entries and the heaviest of the others stay.

    The reference code knows no groups of query heads. It prunes the cache to B after the new entry was read, so it
    reads B + 1; here no step reads more than B. Its two halves are shares of the *prompt*, a ratio each; here they are
    shares of B.

    Parameters:
        heavy: Share of the budget for heavy hitters.
    """

    name = "h2o"
    summary = "keeps the newest entries and those attended to most in all"
    source = "Zhang et al. 2023, arXiv 2306.14048; budget (P + L) / CR of arXiv 2506.05345"
    state = _HeavyHitters
    needs_attention = True
    weighs_prompts = True

    rule: BudgetRule = "fixed"
    recent: int = field(init=False, default=1)  # no parameter: the recent entries are a share of the budget
    pin_prompt: bool = False
    heavy: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.heavy <= 1:
            raise MethodError(f"heavy of {self.name} must be a share between 0 and 1, not {self.heavy}")

    def prompt_queries(self, prompt: int) -> int:
        """See `Method.prompt_queries`: all queries count."""
        return prompt

    def window(self, budget: Tensor, pinned: Tensor) -> Tensor:
        """How many of the newest entries are safe, of a budget and the pinned entries in it, int64 each."""
        free = budget - pinned
        return (free - (free.to(torch.float64) * self.heavy).to(torch.int64)).clamp(min=1)
