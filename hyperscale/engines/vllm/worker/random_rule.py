"""Random eviction: when the budget is full, a uniformly random generated entry that is not among the newest leaves.

The choice is that of `hyperscale.methods.random_eviction`, bit for bit: a function of the noise key, the step, the
layer and the head. It names a rank among a list's slots, so lists keep the slots that decoding gave them, also where
vLLM recomputes a preempted request as a chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.rule import Layout, Rows, Rule, Span
from hyperscale.engines.vllm.worker.tables import Lists
from hyperscale.methods.core.row_budget import budget_floor, row_budget
from hyperscale.utils import counter_rng


@dataclass
class _Replay:
    """What decoding would have done to all lists of a request, up to a position.

    Attributes:
        stop: Position after the last one replayed.
        expiry: (layers, heads, generated) int64, of each generated entry.
        held: (layers, heads, slots) int64, the generated token that each slot after the prompt's holds.
        before: As ``held``, when the chunk began.
    """

    stop: int
    expiry: Tensor
    held: Tensor
    before: Tensor


class Uniform(Rule):
    """See the module."""

    def __init__(self, lists: Lists, options: Options, first_head: int, all_heads: int) -> None:
        super().__init__(lists, options)
        device = lists.expiry.device
        self._safe = options.recent - 1
        self._rows = torch.arange(lists.layers, device=device)[:, None] * all_heads + first_head
        self._rows = self._rows + torch.arange(lists.heads, device=device)  # (layers, heads)
        # The slots of the newest entries, (slots, layers, heads, recent - 1).
        self._ring = torch.zeros(*lists.lens.shape, self._safe, dtype=torch.int64, device=device)
        self._replays: dict[int, _Replay] = {}

    def lower(self, rows: Rows) -> None:
        """See `Rule.lower`."""
        prompt, new, keys = self.lists.facts[rows.slots].T
        full = rows.lens >= self._budget(prompt, new, rows.positions + 1)[:, None]
        ring = self._ring[rows.slots, rows.layer]
        rank = self._rank(keys, rows.positions - prompt, self._rows[rows.layer], rows.lens - prompt[:, None])
        victims = prompt[:, None] + _above(rank, ring - prompt[:, None, None])
        full &= (rows.positions >= prompt)[:, None]
        entries = self.lists.entries(rows.slots, rows.layer, torch.where(full, victims, 0))
        now = rows.positions[:, None].expand_as(entries).to(torch.int32)
        self.lists.expiry.view(-1)[entries[full]] = now[full]

    def written(self, rows: Rows, places: Tensor) -> None:
        """See `Rule.written`."""
        if self._safe:
            step = rows.positions - self.lists.facts[rows.slots, 0]
            heads = torch.arange(self.lists.heads, device=places.device)
            self._ring[rows.slots[:, None], rows.layer, heads, step[:, None] % self._safe] = places

    def lower_before(self, span: Span) -> None:
        """See `Rule.lower_before`."""
        self._replays.pop(span.slot, None) if span.layer == 0 else None
        prompt = int(self.lists.facts[span.slot, 0])
        if span.stop <= prompt:
            return
        if span.layer == 0:
            self._replays[span.slot] = self._replay(span.slot, prompt, span.start, span.stop)
        replay = self._replays[span.slot]
        kept = max(span.start - prompt, 0)
        held = replay.before[span.layer]
        have = int(self.lists.lens[span.slot, span.layer, 0]) - prompt
        if kept and have > 0:
            slots = torch.tensor([span.slot], device=held.device)
            places = (prompt + torch.arange(have, device=held.device)).expand(1, self.lists.heads, -1)
            heads = torch.arange(self.lists.heads, device=held.device)[None, :, None]
            page = self.lists.page_table[slots[:, None, None], span.layer, heads, places // self.lists.page_tokens]
            entries = (page.long() * self.lists.page_tokens + places % self.lists.page_tokens)[0]
            expiry = replay.expiry[span.layer].gather(1, held[:, :have])
            self.lists.expiry.view(-1)[entries] = expiry.to(torch.int32)

    def born_in(self, span: Span) -> Tensor:
        """See `Rule.born_in`."""
        expiry = super().born_in(span)
        prompt = int(self.lists.facts[span.slot, 0])
        if span.stop > prompt:
            first = max(span.start, prompt)
            known = self._replays[span.slot].expiry[span.layer, :, first - prompt :]
            expiry[:, first - span.start :] = known.to(torch.int32)
        return expiry

    def layout(self, span: Span, have: int) -> Layout | None:
        """See `Rule.layout`."""
        prompt = int(self.lists.facts[span.slot, 0])
        if span.stop <= prompt:
            return None
        replay = self._replays[span.slot]
        held = replay.held[span.layer] + prompt  # the position of the token in each slot
        pinned = torch.arange(prompt, device=held.device).expand(len(held), -1)
        slots = torch.arange(held.shape[1], device=held.device) + prompt
        stayed = torch.where(held < span.start, slots, have + held - span.start)
        source = torch.cat([torch.where(pinned < span.start, pinned, have + pinned - span.start), stayed], 1)
        return Layout(source, torch.full((len(held),), source.shape[1], device=held.device))

    def _budget(self, prompt: Tensor, new: Tensor, length: Tensor) -> Tensor:
        rule, cr = self.options.share, self.options.cr
        return row_budget(rule, cr, budget_floor(rule, cr, prompt + self.options.recent, prompt + new), length)

    def _rank(self, keys: Tensor, steps: Tensor, rows: Tensor, generated: Tensor) -> Tensor:
        """Which of the slots that are not safe, counted from the first: (requests, heads) int64."""
        victims = (generated - self._safe).clamp(min=1)
        bits = counter_rng.mix(counter_rng.mix(keys, steps)[:, None], rows)
        return torch.minimum((counter_rng.uniform(bits) * victims).long(), victims - 1)

    def _replay(self, slot: int, prompt: int, start: int, stop: int) -> _Replay:
        """Decode's bookkeeping of one request, without the decoding."""
        _, new, key = self.lists.facts[slot].tolist()
        layers, heads = self._rows.shape
        keys = torch.tensor([key], device=self._rows.device)
        expiry = torch.full((layers, heads, stop - prompt), NEVER, dtype=torch.int64, device=self._rows.device)
        held = torch.zeros(layers, heads, 0, dtype=torch.int64, device=self._rows.device)
        before, ring = held, self._ring[slot].clone()
        for step in range(stop - prompt):
            if prompt + step == start:
                before = held.clone()
            length = torch.tensor(prompt + step + 1)
            size = held.shape[2]
            if prompt + size < int(self._budget(torch.tensor(prompt), torch.tensor(new), length)):
                place = torch.full((layers, heads), size, device=held.device)
                held = torch.cat([held, torch.full((layers, heads, 1), step, device=held.device)], 2)
            else:
                steps = torch.tensor([step], device=held.device)
                rank = self._rank(keys, steps, self._rows.view(1, -1), torch.tensor([[size]])).view(layers, heads)
                place = _above(rank, ring - prompt)
                victim = held.gather(2, place[..., None])
                expiry.scatter_(2, victim, prompt + step)
                held.scatter_(2, place[..., None], step)
            if self._safe:
                ring[:, :, step % self._safe] = prompt + place
        self._ring[slot] = ring
        return _Replay(stop, expiry, held, before)


def _above(rank: Tensor, safe: Tensor) -> Tensor:
    """The ``rank``-th place that is not among the safe ones: every safe place at or below it pushes it up by one."""
    order = safe.sort(dim=-1).values - torch.arange(safe.shape[-1], device=safe.device)
    return rank + (order <= rank[..., None]).sum(-1)
