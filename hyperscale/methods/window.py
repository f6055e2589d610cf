"""Null baseline: the prompt, if it is pinned, and the most recent entries."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, Host, State, Token
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.prefill_view import PrefillView


class RecentState(BudgetedState):
    """The first entries that are kept for good, in the first slots, and the newest entries.

    An entry's *number* counts the entries that were ever stored, so those of a prompt have the numbers of their slots.
    The live entries that may leave are the latest ones, so it is the number of the next entry and how many live that
    tell which leaves. All heads of a chain do the same. ``tensors[1]`` is (1, slots, numbers), the slot of each entry;
    ``tensors[2]`` is (1, slots), how many tokens of the prompt have no number.
    """

    def __init__(self, method: BudgetedMethod, host: Host, sinks: int = 0) -> None:
        super().__init__(method, host)
        self._sinks, self._heads = sinks, host.kv_heads
        self._taken = torch.zeros(1, host.slots, 0, dtype=torch.int32, device=host.device)
        self._dropped = torch.zeros(1, host.slots, dtype=torch.int64, device=host.device)
        self.tensors = (self._facts, self._taken, self._dropped)

    def cut_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        """See `State.cut_prompt`."""
        room = self._method.room(view.length, view.max_new_tokens)
        if view.length <= room:  # a pinned prompt always has room
            return None, None
        position = torch.arange(view.length, device=view.keys.device)
        kept = (position < self._sinks) | (position >= view.length - (room - self._sinks))
        return kept.expand(self._heads, -1), None

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        super().admit(first, entrants, prompt)
        longest = max(entrant.max_new_tokens for entrant in entrants)
        kept = min(prompt.length, self._method.room(prompt.length, longest))
        if kept + longest > self._taken.shape[2]:
            self._taken = pad(self._taken, (0, kept + longest - self._taken.shape[2]))
            self.tensors = (self._facts, self._taken, self._dropped)
        chains = slice(first, first + len(entrants))
        self._taken[:, chains, :kept] = torch.arange(kept, dtype=torch.int32, device=self._taken.device)
        self._dropped[:, chains] = prompt.length - kept

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        lens = step.lens[0, :, 0]
        taken = self._taken[0, : len(lens)]
        number = (step.positions - self._dropped[0, : len(lens)])[:, None]
        leaves = number - (lens - self.pinned(step).clamp(min=self._sinks))[:, None]
        # An appending row has nothing that leaves; clamping only keeps the index valid.
        oldest = taken.gather(1, leaves.clamp_(min=0).minimum(number))[:, 0]
        slot = torch.where(lens < self.budget(step), lens, oldest)
        taken.scatter_(1, number, slot[:, None].to(torch.int32))
        self._slot = slot[:, None].expand(-1, self._heads)

    def slots(self, layer: int, token: Token) -> Tensor:
        """See `State.slots`."""
        return self._slot


class Window(BudgetedMethod):
    """Evicts the oldest entry that may leave whenever the budget is full.

    With ``pin_prompt`` only generated entries may. Without, the newest entries of everything stay; the prompt is
    prefilled densely all the same and cut after it, so what it leaves behind has seen all of it.
    """

    name = "window"
    summary = "null baseline: most recent entries kept, prompt pinned"
    source = "sliding window with the prompt as sink; compare Xiao et al. 2023, arXiv 2309.17453"

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return RecentState(self, host)
