"""What the two null baselines share: a pinned prompt, a protected recent window, and a budget of live entries."""

from collections.abc import Sequence
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor

from hyperscale.errors import MethodError
from hyperscale.kv.prompt import Prompt
from hyperscale.methods.base import Entrant, Host, Method, State, Step


class PinnedState(State):
    """Per-chain budgets. ``tensors[0]`` is (3, slots): prompt length, fixed floor of the budget, noise key."""

    def __init__(self, method: "PinnedMethod", host: Host) -> None:
        self._method = method
        self._facts = torch.zeros(3, host.slots, dtype=torch.int64, device=host.device)
        self.tensors: Sequence[Tensor] = (self._facts,)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: Prompt) -> None:
        """See `State.admit`."""
        floors = [self._method.floor(prompt.length, entrant.max_new_tokens) for entrant in entrants]
        facts = [[prompt.length] * len(entrants), floors, [entrant.key for entrant in entrants]]
        self._facts[:, first : first + len(entrants)] = torch.tensor(facts).to(self._facts.device)

    def budget(self, step: Step) -> Tensor:
        """(chains,) int64: the most live entries a row may have after this step."""
        floor = self._facts[1, : len(step.positions)]
        if self._method.rule == "fixed":
            return floor
        # The sequence is q + 1 tokens long, the one being processed included.
        share = torch.ceil((step.positions + 1).to(torch.float64) / self._method.cr).to(torch.int64)
        return torch.maximum(floor, share)


class PinnedMethod(Method):
    """Keeps the prompt and the newest ``recent`` entries, and holds every row at the same budget of live entries.

    With n the tokens of the sequence so far and P those of the prompt, the budget is
      proportional: max(P + recent, ceil(n / CR)), a rule that knows no maximum length;
      fixed:        max(P + recent, ceil((P + L) / CR)), as budgets are set in arXiv 2506.05345.
    """

    def __init__(
        self, cr: float = 8.0, rule: Literal["proportional", "fixed"] = "proportional", recent: int = 16
    ) -> None:
        super().__init__(cr)
        if rule not in ("proportional", "fixed"):
            raise MethodError(f"rule of {self.name} must be 'proportional' or 'fixed', not {rule!r}")
        if recent < 1:
            raise MethodError(f"{self.name} must keep at least 1 recent entry, not {recent}")
        self.rule, self.recent = rule, recent

    @property
    def length_invariant(self) -> bool:
        """See `Method.length_invariant`."""
        return self.rule == "proportional"

    def params(self) -> dict[str, Any]:
        """See `Method.params`."""
        return {"cr": self.cr, "rule": self.rule, "recent": self.recent}

    def floor(self, prompt: int, max_new_tokens: int) -> int:
        """The part of the budget that does not depend on the sequence so far."""
        pinned = prompt + self.recent
        return pinned if self.rule == "proportional" else max(pinned, ceil((prompt + max_new_tokens) / self.cr))
