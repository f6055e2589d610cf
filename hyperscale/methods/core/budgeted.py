"""Bases of the methods with a budget of live entries: the budget rule, the pinned prompt, the recent entries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, Method, State
from hyperscale.methods.core.row_budget import BudgetRule, Count, budget_floor, row_budget
from hyperscale.utils.device_copy import upload


class BudgetedState(State):
    """Per-chain budgets. ``tensors[0]`` is (3, max_chains): prompt length, floor of the budget, noise key."""

    method: "BudgetedMethod"

    def __init__(self, method: "BudgetedMethod", host: HostModel) -> None:
        super().__init__(method, host)
        self._facts = torch.zeros(3, host.max_chains, dtype=torch.int64, device=host.device)
        self.tensors: Sequence[Tensor] = (self._facts,)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        floors = [self.method.floor(prompt.length, entrant.L) for entrant in entrants]
        facts = [prompt.length] * len(entrants) + floors + [entrant.noise_key for entrant in entrants]
        self._facts[:, first : first + len(entrants)] = upload(facts, self._facts.device).view(3, -1)

    def open_chains(self, chains: Tensor, facts: Tensor) -> None:
        """Set the state of chains of which nothing has been processed, where no prompt is prefilled by itself.

        Args:
            chains: (any,) int64, their numbers, all different.
            facts: (3, any) int64: prompt length, floor of the budget, noise key of each.
        """
        self._facts[:, chains] = facts

    def budget(self, step: DecodeStep) -> Tensor:
        """(chains,) int64: the most live entries a row may have after this step."""
        # The floor was computed with each chain's own P and L when it was admitted.
        floor = self._facts[1, : len(step.positions)]
        # The sequence is q + 1 tokens long, the one being processed included.
        return self.method.row_budget(floor, step.positions + 1)

    def pinned(self, step: DecodeStep) -> Tensor:
        """(chains,) int64: how many entries of the prompt, its first, are never evicted."""
        prompt = self._facts[0, : len(step.positions)]
        return prompt if self.method.pin_prompt else torch.zeros_like(prompt)


@dataclass
class BudgetedMethod(Method):
    """Holds every row at the same budget of live entries, in which the newest ``recent`` entries are safe.

    The budget is that of `hyperscale.methods.core.row_budget`, with F = ``recent`` and, with ``pin_prompt``, the
    prompt. With ``budget`` it is max(F, ``budget``) whatever the sequence's length, and CR and rule have no effect.

    Parameters:
        rule: The budget B of a row. "proportional": max(F, ceil(n / CR)), of the n tokens so far; "fixed":
            max(F, ceil((P + L) / CR)), of the prompt and the most new tokens. F is what is never evicted.
        recent: Newest entries that are never evicted, the token being processed among them.
        pin_prompt: Whether no entry of the prompt is ever evicted.
        budget: The budget B in tokens, instead of by CR and rule; of several, like 512,1024, each is run.
    """

    cr: float = 8.0
    rule: BudgetRule = "proportional"
    recent: int = 16
    pin_prompt: bool = True
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.budget < 1:
            raise MethodError(f"budget of {self.name} must be at least 1 token, not {self.budget}")
        if self.rule not in ("proportional", "fixed"):
            raise MethodError(f"rule of {self.name} must be 'proportional' or 'fixed', not {self.rule!r}")
        if self.recent < 1:
            raise MethodError(f"{self.name} must keep at least 1 recent entry, not {self.recent}")
        if not isinstance(self.pin_prompt, bool):
            raise MethodError(f"pin_prompt of {self.name} must be true or false, not {self.pin_prompt!r}")

    @property
    def length_invariant(self) -> bool:
        """See `Method.length_invariant`."""
        return self.budget is not None or self.rule == "proportional"

    def params(self) -> dict[str, Any]:
        """See `Method.params`; ``budget`` is left out where there is none, as in results of versions without it."""
        return {name: value for name, value in super().params().items() if name != "budget" or value is not None}

    def always(self, prompt: int) -> int:
        """F, the entries that are always kept, the newest among them."""
        return self.recent + (prompt if self.pin_prompt else 0)

    def floor(self, prompt: int, L: int) -> int:
        """The part of the budget that does not depend on the sequence so far."""
        if self.budget is not None:
            return max(self.always(prompt), self.budget)
        return budget_floor(self.rule, self.cr, self.always(prompt), prompt + L)

    def row_budget(self, floor: Count, tokens: Count) -> Count:
        """The budget of a row when the sequence has so many tokens; ``floor`` is what `floor` gives."""
        return floor if self.budget is not None else row_budget(self.rule, self.cr, floor, tokens)

    def allowance(self, prompt: int, tokens: int, L: int) -> int | None:
        """See `Method.allowance`."""
        return self.budget_after(prompt, tokens, L)

    def budget_after(self, prompt: int, tokens: int, L: int) -> int:
        """The budget of a row after ``tokens`` generated tokens, of which the last is never processed."""
        return self.row_budget(self.floor(prompt, L), prompt + tokens - 1)

    def room(self, prompt: int, L: int) -> int:
        """How many entries of a prompt may stay, so that the first generated token has room."""
        return self.budget_after(prompt, 2, L) - 1
