"""Null baseline: prompt pinned, and a uniformly random choice of the generated entries."""

import torch
from torch import Tensor

from hyperscale import noise
from hyperscale.methods.base import Host, State, Step, Token
from hyperscale.methods.budgeted import BudgetedMethod, BudgetedState


class _RandomVictim(BudgetedState):
    """The slots of each row's newest ``recent - 1`` entries: safe, and the recent ones together with the new entry."""

    def __init__(self, method: BudgetedMethod, host: Host) -> None:
        super().__init__(method, host)
        self._safe = method.recent - 1
        shape = (host.layers, host.slots, host.kv_heads, self._safe)
        self._ring = torch.zeros(shape, dtype=torch.int64, device=host.device)
        self.tensors = (self._facts, self._ring)
        rows = torch.arange(host.layers * host.kv_heads, device=host.device)
        self._rows = rows.view(host.layers, 1, host.kv_heads)

    def begin(self, step: Step) -> None:
        layers, chains, heads = step.lens.shape
        prompt, _, keys = self._facts[:, :chains]
        generated = step.positions - prompt
        ring = self._ring[:, :chains]
        victims = (step.lens - prompt[:, None] - self._safe).clamp_(min=1)
        bits = noise.mix(noise.mix(keys, generated)[None, :, None], self._rows)
        rank = torch.minimum((noise.uniform(bits) * victims).to(torch.int64), victims - 1)
        # The rank-th generated slot that is not safe: every safe slot at or below it pushes it up by one.
        safe = ring.sort(dim=-1).values - prompt[:, None, None]
        offset = safe - torch.arange(self._safe, device=safe.device)
        evicted = prompt[:, None] + rank + (offset <= rank[..., None]).sum(-1)
        appends = (step.lens[0, :, 0] < self.budget(step))[:, None]
        self._slot = torch.where(appends, step.lens, evicted)
        if self._safe:
            at = (generated % self._safe)[None, :, None, None].expand(layers, chains, heads, 1)
            ring.scatter_(3, at, self._slot[..., None])

    def slots(self, layer: int, token: Token) -> Tensor:
        return self._slot[layer]


class Random(BudgetedMethod):
    """Evicts a generated entry, uniformly at random per head, whenever the budget is full.

    The ``recent`` newest entries are safe. The choice is a function of (seed, problem, chain, step, layer, head).
    """

    name = "random"
    summary = "null baseline: prompt pinned, generated entries evicted uniformly at random"
    source = "uniform random eviction, a control that no paper proposes and every paper needs"

    def start(self, host: Host) -> State:
        """See `Method.start`."""
        return _RandomVictim(self, host)
