"""Null baseline: keeps the prompt, if it is pinned, and the most recent entries."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.prefill_view import PrefillView


class RecentState(BudgetedState):
    """The first entries, which are kept for good and lie in the first slots, and the newest entries.

    Entries are *numbered* in the order in which they were stored, so those of a prompt have the numbers of their slots.
    The live entries that may leave are always the newest ones. So the number of the one that leaves follows from the
    number of the next entry and from how many live. All heads of a chain do the same. ``tensors[1]`` is
    (1, max_chains, numbers), the slot of each entry; ``tensors[2]`` is (1, max_chains), how many tokens of the prompt
    were not stored.
    """

    capturable = True

    def __init__(self, method: BudgetedMethod, host: HostModel, sinks: int = 0) -> None:
        super().__init__(method, host)
        self._sinks, self._layers, self._heads = sinks, host.layers, host.kv_heads
        self._slot_of = torch.zeros(1, host.max_chains, 0, dtype=torch.int32, device=host.device)
        self._dropped = torch.zeros(1, host.max_chains, dtype=torch.int64, device=host.device)
        self.tensors = (self._facts, self._slot_of, self._dropped)

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.prune_prompt`."""
        live, _ = self.prune_prompt_layers(range(layer, layer + 1), view)
        return None if live is None else live[0], None

    def prune_prompt_layers(self, layers: range, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.prune_prompt_layers`."""
        room = self.method.room(view.length, view.L)
        if view.length <= room:  # a pinned prompt always has room
            return None, None
        position = torch.arange(view.length, device=view.keys.device)
        stays = (position < self._sinks) | (position >= view.length - (room - self._sinks))
        return stays.expand(len(layers), self._heads, -1), None

    def reserve(self, slots: int, tokens: int) -> None:
        """See `State.reserve`."""
        self._slot_of = pad(self._slot_of, (0, max(tokens - self._slot_of.shape[2], 0)))
        self.tensors = (self._facts, self._slot_of, self._dropped)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        super().admit(first, entrants, prompt)
        longest = max(entrant.L for entrant in entrants)
        count = min(prompt.length, self.method.room(prompt.length, longest))
        if count + longest > self._slot_of.shape[2]:
            self._slot_of = pad(self._slot_of, (0, count + longest - self._slot_of.shape[2]))
            self.tensors = (self._facts, self._slot_of, self._dropped)
        chains = slice(first, first + len(entrants))
        self._slot_of[:, chains, :count] = torch.arange(count, dtype=torch.int32, device=self._slot_of.device)
        self._dropped[:, chains] = prompt.length - count

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        lens = step.lens[0, :, 0]
        slot_of = self._slot_of[0, : len(lens)]
        # Not below 0 either for a prompt's first token that comes alone, where a former chain's facts still stand.
        number = (step.positions - self._dropped[0, : len(lens)]).clamp_(min=0)[:, None]
        # All but the pinned entries may leave; the oldest of them is that many numbers before the next entry.
        leaving = number - (lens - self.pinned(step).clamp(min=self._sinks))[:, None]
        # An appending row has nothing that leaves; clamping only keeps the index valid.
        oldest = slot_of.gather(1, leaving.clamp_(min=0).minimum(number))[:, 0]
        slot = torch.where(lens < self.budget(step), lens, oldest)
        slot_of.scatter_(1, number, slot[:, None].to(torch.int32))
        self._slot = slot[:, None].expand(-1, self._heads)

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        """See `State.write_slots`."""
        return self._slot

    def planned_slots(self) -> Tensor:
        """See `State.planned_slots`."""
        return self._slot.expand(self._layers, -1, -1)


@dataclass
class Window(BudgetedMethod):
    """Evicts the oldest entry that may leave whenever the budget B is full.

    A token at position q sees {k > q - B}. With ``pin_prompt`` it sees the prompt, P entries, and {k > q - (B - P)}.
    Without, the prompt is prefilled densely all the same and pruned after it, so what it leaves behind has seen all
    of it.
    """

    name = "window"
    summary = "null baseline: most recent entries kept, prompt pinned"
    source = "sliding window with the prompt as sink; compare Xiao et al. 2023, arXiv 2309.17453"
    state = RecentState
