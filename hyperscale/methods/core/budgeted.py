"""What the methods with a budget of live entries share: the budget's rule, the pinned prompt, the recent window."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, Host, Method, State
from hyperscale.methods.core.row_budget import BudgetRule, budget_floor, row_budget


class BudgetedState(State):
    """Per-chain budgets. ``tensors[0]`` is (3, slots): prompt length, fixed floor of the budget, noise key."""

    def __init__(self, method: "BudgetedMethod", host: Host) -> None:
        self._method = method
        self._facts = torch.zeros(3, host.slots, dtype=torch.int64, device=host.device)
        self.tensors: Sequence[Tensor] = (self._facts,)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`."""
        floors = [self._method.floor(prompt.length, entrant.max_new_tokens) for entrant in entrants]
        facts = [[prompt.length] * len(entrants), floors, [entrant.key for entrant in entrants]]
        self._facts[:, first : first + len(entrants)] = torch.tensor(facts).to(self._facts.device)

    def budget(self, step: DecodeStep) -> Tensor:
        """(chains,) int64: the most live entries a row may have after this step."""
        floor = self._facts[1, : len(step.positions)]
        # The sequence is q + 1 tokens long, the one being processed included.
        return row_budget(self._method.rule, self._method.cr, floor, step.positions + 1)

    def pinned(self, step: DecodeStep) -> Tensor:
        """(chains,) int64: how many entries of the prompt, its first, are never evicted."""
        prompt = self._facts[0, : len(step.positions)]
        return prompt if self._method.pin_prompt else torch.zeros_like(prompt)


class BudgetedMethod(Method):
    """Holds every row at the same budget of live entries, in which the newest ``recent`` entries are safe.

    With n the tokens of the sequence so far, P those of the prompt, and F the entries that are always kept, ``recent``
    and, with ``pin_prompt``, the prompt, the budget is
      proportional: max(F, ceil(n / CR)), a rule that knows no maximum length;
      fixed:        max(F, ceil((P + L) / CR)), as budgets are set in arXiv 2506.05345.
    """

    #: Defaults of a method, where its paper has others.
    default_rule: ClassVar[BudgetRule] = "proportional"
    default_pin: ClassVar[bool] = True

    def __init__(
        self, cr: float = 8.0, rule: BudgetRule | None = None, recent: int = 16, pin_prompt: bool | None = None
    ) -> None:
        super().__init__(cr)
        rule = self.default_rule if rule is None else rule
        pin_prompt = self.default_pin if pin_prompt is None else pin_prompt
        if rule not in ("proportional", "fixed"):
            raise MethodError(f"rule of {self.name} must be 'proportional' or 'fixed', not {rule!r}")
        if recent < 1:
            raise MethodError(f"{self.name} must keep at least 1 recent entry, not {recent}")
        if not isinstance(pin_prompt, bool):
            raise MethodError(f"pin_prompt of {self.name} must be true or false, not {pin_prompt!r}")
        self.rule, self.recent, self.pin_prompt = rule, recent, pin_prompt

    @property
    def length_invariant(self) -> bool:
        """See `Method.length_invariant`."""
        return self.rule == "proportional"

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        return {"cr": self.cr, "rule": self.rule, "recent": self.recent, "pin_prompt": self.pin_prompt}

    def always(self, prompt: int) -> int:
        """F, the entries that are always kept, the newest among them."""
        return self.recent + (prompt if self.pin_prompt else 0)

    def floor(self, prompt: int, max_new_tokens: int) -> int:
        """The part of the budget that does not depend on the sequence so far."""
        return budget_floor(self.rule, self.cr, self.always(prompt), prompt + max_new_tokens)

    def allowance(self, prompt: int, tokens: int, max_new_tokens: int) -> int:
        """See `Method.allowance`: the budget after ``tokens`` tokens, of which the last is never processed."""
        return row_budget(self.rule, self.cr, self.floor(prompt, max_new_tokens), prompt + tokens - 1)

    def room(self, prompt: int, max_new_tokens: int) -> int:
        """How many entries of a prompt may stay, so that the first generated token has room."""
        return self.allowance(prompt, 2, max_new_tokens) - 1
