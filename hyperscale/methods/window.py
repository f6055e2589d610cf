"""Null baseline: prompt pinned, and the most recent entries."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperscale.kv.prompt import Prompt
from hyperscale.methods.base import Entrant, Host, State, Step, Token
from hyperscale.methods.budgeted import BudgetedMethod, BudgetedState


class _Recent(BudgetedState):
    """Slots in the order in which generated entries took them.

    Live generated entries are always the latest ones, so the entry that leaves was written ``live - P`` steps ago. All
    heads of a chain do the same.
    """

    def __init__(self, method: BudgetedMethod, host: Host) -> None:
        super().__init__(method, host)
        self._taken = torch.zeros(1, host.slots, 0, dtype=torch.int32, device=host.device)
        self.tensors = (self._facts, self._taken)
        self._heads = host.kv_heads

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: Prompt) -> None:
        super().admit(first, entrants, prompt)
        longest = max(entrant.max_new_tokens for entrant in entrants)
        if longest > self._taken.shape[2]:
            self._taken = torch.nn.functional.pad(self._taken, (0, longest - self._taken.shape[2]))
            self.tensors = (self._facts, self._taken)

    def begin(self, step: Step) -> None:
        lens = step.lens[0, :, 0]
        prompt = self._facts[0, : len(lens)]
        taken = self._taken[0, : len(lens)]
        age = (step.positions - prompt)[:, None]
        # An appending row has no oldest entry to look up; clamping only keeps the index valid.
        oldest = taken.gather(1, (age - (lens - prompt)[:, None]).clamp_(min=0))[:, 0]
        slot = torch.where(lens < self.budget(step), lens, oldest)
        taken.scatter_(1, age, slot[:, None].to(torch.int32))
        self._slot = slot[:, None].expand(-1, self._heads)

    def slots(self, layer: int, token: Token) -> Tensor:
        return self._slot


class Window(BudgetedMethod):
    """Evicts the oldest generated entry whenever the budget is full."""

    name = "window"
    summary = "null baseline: prompt pinned, most recent entries kept"
    source = "sliding window with the prompt as sink; compare Xiao et al. 2023, arXiv 2309.17453"

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _Recent(self, host)
