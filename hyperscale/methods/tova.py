"""TOVA: the entry that the latest query cares least about leaves."""

from typing import Any, Literal

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.methods.base import Host, State, Token
from hyperscale.methods.budgeted import BudgetedMethod, Rule
from hyperscale.methods.look import Look
from hyperscale.methods.slotted import SlottedState
from hyperscale.methods.top import best


class _LeastAttended(SlottedState):
    """The slot that each row would give up, as the latest query saw it. ``tensors[3]`` is (layers, slots, kv_heads)."""

    def __init__(self, method: "TOVA", host: Host) -> None:
        super().__init__(method, host)
        self._tova = method
        self._victim = torch.zeros(host.layers, host.slots, host.kv_heads, dtype=torch.int64, device=host.device)
        self.tensors = (*self.tensors, self._victim)

    def widen(self, width: int) -> None:
        super().widen(width)
        self.tensors = (*self.tensors[:3], self._victim)

    def keep(self, layer: int, look: Look) -> tuple[Tensor | None, Tensor | None]:
        room = self._tova.room(look.length, look.max_new_tokens)
        if look.length <= room:
            return None, None
        scores = self._pooled(look.weights(look.length - 1)[None, :, :, 0])[0]
        return best(scores, room, newest=self._tova.recent - 1), None

    def slots(self, layer: int, token: Token) -> Tensor:
        return self.write(layer, self._victim[layer, : len(token.keys)], token.width)

    def observe(self, layer: int, weights: Tensor) -> None:
        scores = self._pooled(weights)
        scores = scores.masked_fill(~self.evictable(layer, scores.shape[2]), float("inf"))
        self._victim[layer, : len(scores)] = scores.argmin(-1)

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
        rule: Rule | None = None,
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
