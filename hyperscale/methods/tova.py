"""TOVA: gives up the entry to which the latest query attends least."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import HostModel
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.prefill_view import PrefillView, top_entries
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.core.victim import VictimState


class _LeastAttended(VictimState):
    """The latest query's attention alone decides."""

    capturable = True
    method: "TOVA"

    def __init__(self, method: "TOVA", host: HostModel) -> None:
        super().__init__(method, host, shared=method.per == "layer")

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        return self.prune_prompt_layers(range(layer, layer + 1), view)

    def prune_prompt_layers(self, layers: range, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        # The same rule in all layers, of which the view may be one or several.
        room = self.method.room(view.length, view.L)
        if view.length <= room:
            return None, None
        # As in decoding, the latest query alone decides: (…, kv_heads, group, P).
        last_query = view.weights(view.length - 1)[..., 0, :]
        # The first generated token is one of the recent entries, so the prompt keeps one less.
        return top_entries(self.attention(last_query), room, newest=self.method.recent - 1), None


@dataclass
class TOVA(BudgetedMethod):
    """Token Omission Via Attention: when the budget B is full, the entry with the least attention leaves.

    With a_t(i) the weight that query t gives to entry i, summed over the heads that share a verdict, the entry that
    makes room for token t + 1 is argmin_i a_t(i) over the entries live at t, token t's own included. The prompt is
    prefilled densely; if it is longer than B, the entries to which its last query attends most stay.

    The reference code sums over all heads of a layer (``per="layer"``); ``per="head"`` gives each KV head its own
    verdict. There the cache is pruned to B after the new entry was read, so it reads B + 1; here no step reads more
    than B.

    Parameters:
        per: Whether the heads of a "layer" share a verdict, or each KV "head" has its own.
    """

    name = "tova"
    summary = "evicts what the latest query attends to least"
    source = "Oren et al. 2024, arXiv 2401.06104; budget (P + L) / CR of arXiv 2506.05345"
    state = _LeastAttended
    needs_attention = True

    rule: BudgetRule = "fixed"
    recent: int = 1
    pin_prompt: bool = False
    per: Literal["layer", "head"] = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in ("layer", "head"):
            raise MethodError(f"per of tova must be 'layer' or 'head', not {self.per!r}")

    def prompt_queries(self, prompt: int) -> int:
        """See `Method.prompt_queries`: the latest query alone decides."""
        return 1
