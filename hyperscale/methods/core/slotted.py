"""Tables of what is known of the entry in each slot, base of methods that choose one entry of a row to evict."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState


@dataclass(frozen=True)
class StepBounds:
    """What a decode step's position says of each chain, whatever its entries are; (chains,) int64 each.

    Attributes:
        limit: The most live entries of a row after the step.
        first: How many of the first entries are pinned.
        oldest_safe: The least position whose entry is safe when the next token comes.
    """

    limit: Tensor
    first: Tensor
    oldest_safe: Tensor


class SlottedState(BudgetedState):
    """Position, and on request a score, of the entry in each slot of each row.

    Attributes:
        position: (layers, max_chains, kv_heads, capacity) int32; meaningless where nothing lives.
        entry_score: As position, float32; of no size unless ``scored``.
        scored: Whether there are scores.
        bounds: Of the step that runs.
    """

    def __init__(self, method: BudgetedMethod, host: HostModel, *, scored: bool = False) -> None:
        super().__init__(method, host)
        self.scored = scored
        shape = (host.layers, host.max_chains, host.kv_heads, 0)
        self.position = torch.zeros(shape, dtype=torch.int32, device=host.device)
        self.entry_score = torch.zeros(shape, dtype=torch.float32, device=host.device)
        self.tensors = (self._facts, self.position, self.entry_score)

    def admit(self, first: int, entrants: Sequence[Entrant], prompt: PrefilledPrompt) -> None:
        """See `State.admit`; the prompt's scores are taken over."""
        super().admit(first, entrants, prompt)
        chains = slice(first, first + len(entrants))
        positions = prompt.positions
        if positions is None:  # nothing has left: slot s holds position s
            positions = torch.arange(prompt.length, device=self.position.device).expand(*prompt.lens.shape, -1)
        count = positions.shape[2]
        self.widen(count)
        self.position[:, chains, :, :count] = positions[:, None].to(torch.int32)
        if self.scored:
            self.entry_score[:, chains] = 0
            if prompt.scores is not None:
                self.entry_score[:, chains, :, :count] = prompt.scores[:, None]

    def reserve(self, slots: int, tokens: int) -> None:
        """See `State.reserve`."""
        self.widen(slots)

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        self.step = step
        self.bounds = self.bounds_at(self._facts[:, : len(step.positions)], step.positions)

    def bounds_at(self, facts: Tensor, positions: Tensor) -> StepBounds:
        """Bounds of a step.

        Args:
            facts: (3, chains) int64: ``tensors[0]`` of the chains.
            positions: (chains,) int64, of the tokens being processed.
        """
        prompt, floor, _ = facts
        # The sequence is q + 1 tokens long, the one being processed included.
        limit = self.method.row_budget(floor, positions + 1)
        first = prompt if self.method.pin_prompt else torch.zeros_like(prompt)
        # Of the recent entries the next token is one.
        return StepBounds(limit, first, positions + 2 - self.recent_at(floor, positions + 1, first))

    def recent_at(self, floor: Tensor, position: Tensor, first: Tensor) -> Tensor | int:
        """How many of the newest entries are safe when the token of a position comes, itself among them.

        Args:
            floor: (chains,) int64, see `BudgetedMethod.floor`.
            position: (chains,) int64.
            first: (chains,) int64, pinned entries.
        """
        return self.method.recent

    def widen(self, width: int) -> None:
        """Make room for ``width`` slots a row."""
        missing = width - self.position.shape[3]
        if missing > 0:
            # By half as much again at least, so that growing costs a constant number of copies per slot.
            extra = max(missing, self.position.shape[3] // 2)
            self.position = pad(self.position, (0, extra))
            if self.scored:
                self.entry_score = pad(self.entry_score, (0, extra))
            self.tensors = (self._facts, self.position, self.entry_score)

    def write(self, layer: int, victim: Tensor, width: int) -> Tensor:
        """Append where the budget has room, else take the victim's slot; enter the new entry into the tables.

        Args:
            layer: Layer index.
            victim: (chains, kv_heads) int64, slot that a full row gives up.
            width: `LayerInput.width`.

        Returns:
            (chains, kv_heads) int64, as `State.write_slots`.
        """
        self.widen(width)
        lens = self.step.lens[layer]  # not counting the new entry yet
        target = torch.where(lens < self.bounds.limit[:, None], lens, victim)
        chains = len(lens)
        now = self.step.positions.to(torch.int32)[:, None, None].expand(*lens.shape, 1)
        self.position[layer, :chains].scatter_(2, target[..., None], now)
        if self.scored:
            self.entry_score[layer, :chains].scatter_(2, target[..., None], 0.0)
        return target

    def evictable(self, layer: int, width: int) -> Tensor:
        """Which entries may leave when the next token comes, once this step's is written.

        They live, are not pinned, and are not among the recent ones, the next token counted.

        Returns:
            (chains, kv_heads, width) bool.
        """
        lens = self.step.lens[layer]  # the cache has counted the new entry by now
        position = self.position[layer, : len(lens), :, :width]
        slot = torch.arange(width, device=position.device)
        first, oldest_safe = (bound[:, None, None] for bound in (self.bounds.first, self.bounds.oldest_safe))
        # Pinned entries came first and are never moved.
        return (slot < lens[..., None]) & (slot >= first) & (position < oldest_safe)
