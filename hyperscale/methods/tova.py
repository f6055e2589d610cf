"""TOVA: the entry that the latest query cares least about leaves."""

from typing import Any, Literal

from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import Host, State
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.prefill_view import PrefillView, top_entries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.victim import VictimState


class _LeastAttended(VictimState):
    """The latest query's attention alone decides."""

    def __init__(self, method: "TOVA", host: Host) -> None:
        super().__init__(method, host)
        self._tova = method

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        room = self._tova.room(view.length, view.max_new_tokens)
        if view.length <= room:
            return None, None
        scores = self._pooled(view.weights(view.length - 1)[None, :, :, 0])[0]
        return top_entries(scores, room, newest=self._tova.recent - 1), None

    def observe(self, layer: int, weights: Tensor) -> None:
        self.condemn(layer, self._pooled(weights))

    def _pooled(self, weights: Tensor) -> Tensor:
        """(chains, kv_heads, group, slots) to (chains, kv_heads, slots), equal in all heads if they share a verdict."""
        scores = weights.sum(2)
        return scores.sum(1, keepdim=True).expand_as(scores) if self._tova.per == "layer" else scores


class TOVA(BudgetedMethod):
    """Token Omission Via Attention: when the budget B is full, the entry with the least attention leaves.

    With a_t(i) the weight that query t gives to entry i, summed over the heads that share a verdict, the entry that
    makes room for token t + 1 is argmin_i a_t(i) over the entries live at t, token t's own included. The prompt is
    prefilled densely; if it is longer than B, the entries to which its last query attends most stay.

    The reference code sums over all heads of a layer (``per="layer"``); ``per="head"`` gives each KV head its own
    verdict. There the cache is cut back to B after the new entry was read, so it reads B + 1; here no step reads more
    than B.
    """

    name = "tova"
    summary = "evicts what the latest query attends to least"
    source = "Oren et al. 2024, arXiv 2401.06104; budget (P + L) / CR of arXiv 2506.05345"
    needs_attention = True
    default_rule = "fixed"
    default_pin = False

    def __init__(
        self,
        cr: float = 8.0,
        rule: BudgetRule | None = None,
        recent: int = 1,
        pin_prompt: bool | None = None,
        per: Literal["layer", "head"] = "layer",
    ) -> None:
        super().__init__(cr, rule, recent, pin_prompt)
        if per not in ("layer", "head"):
            raise MethodError(f"per of tova must be 'layer' or 'head', not {per!r}")
        self.per = per

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        return {**super().params(), "per": self.per}

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _LeastAttended(self, host)
