"""Base of methods that choose the entry to evict from each row before the next token comes."""

from torch import Tensor, int64, zeros

from hyperscale.methods.core.base import HostModel, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.slotted import SlottedState


class VictimState(SlottedState):
    """The slot that each row would give up.

    How much an entry is worth keeping is the attention that it gets, summed over the query heads that share the row,
    and on request over all heads of a layer, or over all steps since it was written. The entry with the least leaves,
    among equals the one in the first slot.

    Attributes:
        victim: (layers, max_chains, kv_heads) int64; it is ``tensors[3]``.
        scored: Whether the attention of all steps counts, not the latest alone.
        shared: Whether the heads of a layer share a verdict.
    """

    def __init__(self, method: BudgetedMethod, host: HostModel, *, scored: bool = False, shared: bool = False) -> None:
        super().__init__(method, host, scored=scored)
        self.shared = shared
        self.victim = zeros(host.layers, host.max_chains, host.kv_heads, dtype=int64, device=host.device)
        self.tensors = (*self.tensors, self.victim)

    def observe(self, layer: int, weights: Tensor) -> None:
        """See `State.observe`: chooses what leaves when the next token finds the row full."""
        scores = self.attention(weights)
        if self.scored:
            # A slot's sum started at 0 when its entry was written (`SlottedState.write`).
            total = self.entry_score[layer, : len(scores), :, : scores.shape[2]]
            scores = total.add_(scores)
        # Rows without an evictable entry get slot 0, which nobody uses: their budget has room for the next token.
        scores = scores.masked_fill(~self.evictable(layer, scores.shape[2]), float("inf"))
        self.victim[layer, : len(scores)] = scores.argmin(-1)

    def attention(self, weights: Tensor) -> Tensor:
        """What each entry gets in a step.

        Args:
            weights: (…, kv_heads, group, width), as `State.observe` has them.

        Returns:
            (…, kv_heads, width) float32, equal in all heads if they share a verdict.
        """
        scores = weights.sum(-2)
        return scores.sum(-2, keepdim=True).expand_as(scores) if self.shared else scores

    def widen(self, width: int) -> None:
        """See `SlottedState.widen`."""
        super().widen(width)  # makes ``tensors`` anew, without the victims
        self.tensors = (*self.tensors[:3], self.victim)

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """See `State.write_slots`."""
        return self.write(layer, self.victim[layer, : len(layer_input.keys)], layer_input.width)
