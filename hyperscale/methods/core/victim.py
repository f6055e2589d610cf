"""Base of methods that choose the entry to evict from each row before the next token comes."""

from abc import abstractmethod

from torch import Tensor, int64, zeros

from hyperscale.methods.core.base import HostModel, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.slotted import SlottedState


class VictimState(SlottedState):
    """The slot that each row would give up. ``tensors[3]`` is (layers, max_chains, kv_heads)."""

    def __init__(self, method: BudgetedMethod, host: HostModel, *, scored: bool = False) -> None:
        super().__init__(method, host, scored=scored)
        self._victim = zeros(host.layers, host.max_chains, host.kv_heads, dtype=int64, device=host.device)
        self.tensors = (*self.tensors, self._victim)

    @abstractmethod
    def score(self, layer: int, weights: Tensor) -> Tensor:
        """How much each entry is worth keeping, by the attention of a step.

        Args:
            layer: Layer index.
            weights: (chains, kv_heads, group, width), as `State.observe` has them.

        Returns:
            (chains, kv_heads, width) float32: the entry with the least leaves, among equals the one in the first slot.
        """

    def observe(self, layer: int, weights: Tensor) -> None:
        """See `State.observe`: chooses what leaves when the next token finds the row full."""
        scores = self.score(layer, weights)
        # Rows without an evictable entry get slot 0, which nobody uses: their budget has room for the next token.
        scores = scores.masked_fill(~self.evictable(layer, scores.shape[2]), float("inf"))
        self._victim[layer, : len(scores)] = scores.argmin(-1)

    def widen(self, width: int) -> None:
        """See `SlottedState.widen`."""
        super().widen(width)  # makes ``tensors`` anew, without the victims
        self.tensors = (*self.tensors[:3], self._victim)

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """See `State.write_slots`."""
        return self.write(layer, self._victim[layer, : len(layer_input.keys)], layer_input.width)
