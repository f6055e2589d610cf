"""Tables of what is known of the entry in each slot, base of methods that choose one entry of a row to evict."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.methods.core.base import DecodeStep, Entrant, HostModel
from hyperscale.methods.core.budgeted import BudgetedMethod, BudgetedState


class SlottedState(BudgetedState):
    """Position, and on request a score, of the entry in each slot of each row.

    Attributes:
        position: (layers, max_chains, kv_heads, capacity) int32; meaningless where nothing lives.
        entry_score: As position, float32; of no size unless ``scored``.
        recent: How many of the newest entries are safe when the next token comes, the token's own among them; a number
            or (chains,) int64.
    """

    def __init__(self, method: BudgetedMethod, host: HostModel, *, scored: bool = False) -> None:
        super().__init__(method, host)
        self._scored = scored
        self.recent: int | Tensor = method.recent
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
        if self._scored:
            self.entry_score[:, chains] = 0
            if prompt.scores is not None:
                self.entry_score[:, chains, :, :count] = prompt.scores[:, None]

    def reserve(self, slots: int, tokens: int) -> None:
        """See `State.reserve`."""
        self.widen(slots)

    def begin(self, step: DecodeStep) -> None:
        """See `State.begin`."""
        self.step = step
        self.limit, self.first = self.budget(step), self.pinned(step)

    def widen(self, width: int) -> None:
        """Make room for ``width`` slots a row."""
        missing = width - self.position.shape[3]
        if missing > 0:
            # By half as much again at least, so that growing costs a constant number of copies per slot.
            extra = max(missing, self.position.shape[3] // 2)
            self.position = pad(self.position, (0, extra))
            if self._scored:
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
        target = torch.where(lens < self.limit[:, None], lens, victim)
        chains = len(lens)
        now = self.step.positions.to(torch.int32)[:, None, None].expand(*lens.shape, 1)
        self.position[layer, :chains].scatter_(2, target[..., None], now)
        if self._scored:
            self.entry_score[layer, :chains].scatter_(2, target[..., None], 0.0)
        return target

    def evictable(self, layer: int, width: int) -> Tensor:
        """Which entries may leave when the next token comes, once this step's is written.

        They live, are not pinned, and are not among the `recent` newest, the next token counted.

        Returns:
            (chains, kv_heads, width) bool.
        """
        lens = self.step.lens[layer]  # the cache has counted the new entry by now
        position = self.position[layer, : len(lens), :, :width]
        slot = torch.arange(width, device=position.device)
        oldest_safe = self.step.positions + 2 - self.recent
        # Pinned entries came first and are never moved.
        return (slot < lens[..., None]) & (slot >= self.first[:, None, None]) & (position < oldest_safe[:, None, None])
