"""Null baseline: evicts uniformly at random among all entries but the recent ones and, if pinned, the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel, LayerInput
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState
from hyperscale.methods.core.prefill_view import PrefillView, top_entries
from hyperscale.utils import counter_rng

_PROMPT = counter_rng.key("random", "prompt")


class _RandomVictim(BudgetedState):
    """The slots of each row's newest ``recent - 1`` entries: with the new entry they are the recent ones, and safe.

    ``tensors[1]`` is (layers, max_chains, kv_heads, recent - 1); the entry of generated token t is at index t mod that
    size.
    """

    capturable = True

    def __init__(self, method: BudgetedMethod, host: HostModel) -> None:
        super().__init__(method, host)
        self._safe = method.recent - 1
        shape = (host.layers, host.max_chains, host.kv_heads, self._safe)
        self._ring = torch.zeros(shape, dtype=torch.int64, device=host.device)
        self.tensors = (self._facts, self._ring)
        rows = torch.arange(host.layers * host.kv_heads, device=host.device)
        self._rows = rows.view(host.layers, 1, host.kv_heads)

    def prune_prompt(self, layer: int, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        live, _ = self.prune_prompt_layers(range(layer, layer + 1), view)
        return None if live is None else live[0], None

    def prune_prompt_layers(self, layers: range, view: PrefillView) -> tuple[Tensor | None, Tensor | None]:
        room = self.method.room(view.length, view.L)
        if view.length <= room:  # a pinned prompt always has room
            return None, None
        position = torch.arange(view.length, device=view.keys.device)
        start = torch.full((1,), _PROMPT, dtype=torch.int64, device=position.device)
        rows = counter_rng.mix(start, self._rows[layers.start : layers.stop, 0])  # (layers, kv_heads)
        draws = counter_rng.uniform(counter_rng.mix(rows[..., None], position))
        return top_entries(draws, room, newest=self._safe), None

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        super().admit(first, entrants, prompt)
        if self._safe:
            # The prompt's last entries count as the tokens -1, -2, … before the first generated one.
            tokens = torch.arange(-self._safe, 0, device=self._ring.device)
            # Where the prompt left fewer, the rest is overwritten before anything has to leave.
            newest = prompt.lens[..., None] + tokens
            self._ring[:, first : first + len(entrants), :, tokens % self._safe] = newest[:, None]

    def begin(self, step: DecodeStep) -> None:
        layers, chains, heads = step.lens.shape
        prompt, _, keys = self._facts[:, :chains]  # keys of the noise
        first = self.pinned(step)
        token = step.positions - prompt
        ring = self._ring[:, :chains]
        candidates = (step.lens - first[:, None] - self._safe).clamp_(min=1)
        bits = counter_rng.mix(counter_rng.mix(keys, token)[None, :, None], self._rows)
        rank = torch.minimum((counter_rng.uniform(bits) * candidates).to(torch.int64), candidates - 1)
        # The rank-th slot that is neither pinned nor safe: every safe slot at or below it pushes it up by one.
        safe = ring.sort(dim=-1).values - first[:, None, None]
        offset = safe - torch.arange(self._safe, device=safe.device)
        victim = first[:, None] + rank + (offset <= rank[..., None]).sum(-1)
        appends = (step.lens[0, :, 0] < self.budget(step))[:, None]
        self._slot = torch.where(appends, step.lens, victim)
        if self._safe:
            index = (token % self._safe)[None, :, None, None].expand(layers, chains, heads, 1)
            ring.scatter_(3, index, self._slot[..., None])

    def write_slots(self, layer: int, layer_input: LayerInput) -> Tensor:
        return self._slot[layer]

    def planned_slots(self) -> Tensor:
        return self._slot


@dataclass
class Random(BudgetedMethod):
    """Evicts an entry, uniformly at random per head, whenever the budget is full.

    The ``recent`` newest entries are safe and, with ``pin_prompt``, the prompt. The choice is a function of (seed,
    problem, chain, step, layer, head). A prompt that is not pinned and longer than the budget is pruned after its dense
    prefill, which all chains that start from it share: that pruning depends on (layer, head, position) alone.
    """

    name = "random"
    summary = "null baseline: entries evicted uniformly at random, prompt pinned"
    source = "control; no paper"
    state = _RandomVictim
