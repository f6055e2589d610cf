"""For rules that know, before the next token comes, which entry of each row would have to make room for it."""

from torch import Tensor, int64, zeros

from hyperscale.methods.core.base import Host, Token
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.slotted import SlottedState


class VictimState(SlottedState):
    """The slot that each row would give up. ``tensors[3]`` is (layers, slots, kv_heads)."""

    def __init__(self, method: BudgetedMethod, host: Host, *, scored: bool = False) -> None:
        super().__init__(method, host, scored=scored)
        self._victim = zeros(host.layers, host.slots, host.kv_heads, dtype=int64, device=host.device)
        self.tensors = (*self.tensors, self._victim)

    def widen(self, width: int) -> None:
        """See `SlottedState.widen`."""
        super().widen(width)
        self.tensors = (*self.tensors[:3], self._victim)

    def slots(self, layer: int, token: Token) -> Tensor:
        """See `State.slots`."""
        return self.write(layer, self._victim[layer, : len(token.keys)], token.width)

    def condemn(self, layer: int, scores: Tensor) -> None:
        """Choose, once a step's attention is known, what leaves when the next token finds the row full.

        Args:
            layer: Layer index.
            scores: (chains, kv_heads, width), the entry with the least leaves, among equals the one in the first slot.
        """
        scores = scores.masked_fill(~self.evictable(layer, scores.shape[2]), float("inf"))
        self._victim[layer, : len(scores)] = scores.argmin(-1)
