"""Random eviction: when the budget is full, a uniformly random generated entry that is not among the newest leaves.

The choice is that of `hyperscale.methods.random_eviction`, bit for bit: a function of the noise key, the step, the
layer and the head. It names a rank among a list's places, so lists keep the places that decoding gave them, also where
vLLM recomputes a preempted request as a chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import NEVER
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, EntryOrder, RequestChunk, WorkerMethod
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.utils import counter_rng


@dataclass
class _Replay:
    """What decoding would have done to all lists of a request, up to a position.

    Attributes:
        stop: Position after the last one replayed.
        expiry: (layers, heads, generated) int64, of each generated entry.
        tokens: (layers, heads, places) int64, the generated token that each place after the prompt's holds.
        tokens_before: As ``tokens``, when the chunk began.
    """

    stop: int
    expiry: Tensor
    tokens: Tensor
    tokens_before: Tensor


class WorkerRandom(WorkerMethod):
    """See the module."""

    def __init__(self, tables: EntryTables, options: Options, first_head: int, all_heads: int) -> None:
        super().__init__(tables, options)
        device = tables.expiry.device
        self._num_safe = options.recent - 1  # the newest entry itself is written only after the draw
        # Number of each list among those of the whole model, (layers, heads): noise must not depend on the ranks.
        self._list_numbers = torch.arange(tables.layers, device=device)[:, None] * all_heads + first_head
        self._list_numbers = self._list_numbers + torch.arange(tables.heads, device=device)
        # Ring buffer of the places of the newest entries, (slots, layers, heads, recent - 1), indexed by step.
        self._ring = torch.zeros(*tables.lens.shape, self._num_safe, dtype=torch.int64, device=device)
        self._replays: dict[int, _Replay] = {}

    def lower_expiries(self, batch: DecodeBatch) -> None:
        """See `WorkerMethod.lower_expiries`: the victim expires at the step's own query."""
        prompt, L, keys = self.tables.request_params[batch.slots].T
        full = batch.lens >= self._budget(prompt, L, batch.positions + 1)[:, None]
        ring = self._ring[batch.slots, batch.layer]
        num_generated = batch.lens - prompt[:, None]
        rank = self._draw_rank(keys, batch.positions - prompt, self._list_numbers[batch.layer], num_generated)
        victims = prompt[:, None] + _skip_safe_places(rank, ring - prompt[:, None, None])
        full &= (batch.positions >= prompt)[:, None]
        entries = self.tables.entry_numbers(batch.slots, batch.layer, torch.where(full, victims, 0))
        now = batch.positions[:, None].expand_as(entries).to(torch.int32)
        self.tables.expiry.view(-1)[entries[full]] = now[full]

    def record_places(self, batch: DecodeBatch, places: Tensor) -> None:
        """See `WorkerMethod.record_places`."""
        if self._num_safe:
            step = batch.positions - self.tables.request_params[batch.slots, 0]
            heads = torch.arange(self.tables.heads, device=places.device)
            self._ring[batch.slots[:, None], batch.layer, heads, step[:, None] % self._num_safe] = places

    def lower_expiries_before(self, chunk: RequestChunk) -> None:
        """See `WorkerMethod.lower_expiries_before`."""
        if chunk.layer == 0:  # the replay of an earlier chunk is out of date
            self._replays.pop(chunk.slot, None)
        prompt = int(self.tables.request_params[chunk.slot, 0])
        if chunk.stop <= prompt:
            return
        if chunk.layer == 0:  # one replay for all layers
            self._replays[chunk.slot] = self._replay(chunk.slot, prompt, chunk.start, chunk.stop)
        replay = self._replays[chunk.slot]
        tokens = replay.tokens_before[chunk.layer]
        num_stored = int(self.tables.lens[chunk.slot, chunk.layer, 0]) - prompt  # generated ones; alike in all heads
        if chunk.start > prompt and num_stored > 0:
            slots = torch.tensor([chunk.slot], device=tokens.device)
            places = (prompt + torch.arange(num_stored, device=tokens.device)).expand(1, self.tables.heads, -1)
            heads = torch.arange(self.tables.heads, device=tokens.device)[None, :, None]
            page_tokens = self.tables.page_tokens
            page = self.tables.page_table[slots[:, None, None], chunk.layer, heads, places // page_tokens]
            entries = (page.long() * page_tokens + places % page_tokens)[0]
            expiry = replay.expiry[chunk.layer].gather(1, tokens[:, :num_stored])
            self.tables.expiry.view(-1)[entries] = expiry.to(torch.int32)

    def chunk_expiry(self, chunk: RequestChunk) -> Tensor:
        """See `WorkerMethod.chunk_expiry`."""
        expiry = super().chunk_expiry(chunk)
        prompt = int(self.tables.request_params[chunk.slot, 0])
        if chunk.stop > prompt:
            first = max(chunk.start, prompt)
            replay_expiry = self._replays[chunk.slot].expiry[chunk.layer, :, first - prompt :]
            expiry[:, first - chunk.start :] = replay_expiry.to(torch.int32)
        return expiry

    def order_after(self, chunk: RequestChunk, num_stored: int) -> EntryOrder | None:
        """See `WorkerMethod.order_after`."""
        prompt = int(self.tables.request_params[chunk.slot, 0])
        if chunk.stop <= prompt:
            return None
        replay = self._replays[chunk.slot]
        positions = replay.tokens[chunk.layer] + prompt  # of the token in each place after the prompt's
        prompt_positions = torch.arange(prompt, device=positions.device).expand(len(positions), -1)
        places = torch.arange(positions.shape[1], device=positions.device) + prompt
        # What is older than the chunk lies in its place already; the rest comes from the chunk.
        generated_source = torch.where(positions < chunk.start, places, num_stored + positions - chunk.start)
        prompt_source = torch.where(
            prompt_positions < chunk.start, prompt_positions, num_stored + prompt_positions - chunk.start
        )
        source = torch.cat([prompt_source, generated_source], 1)
        return EntryOrder(source, torch.full((len(positions),), source.shape[1], device=positions.device))

    def _budget(self, prompt: Tensor, L: Tensor, length: Tensor) -> Tensor:
        """Most live entries of a list when the sequence has ``length`` tokens."""
        return self.options.row_budget(self.options.floor(prompt, prompt + L), length)

    def _draw_rank(self, keys: Tensor, steps: Tensor, list_numbers: Tensor, generated: Tensor) -> Tensor:
        """Number of the victim among the places that are not safe: (requests, heads) int64."""
        candidates = (generated - self._num_safe).clamp(min=1)
        bits = counter_rng.mix(counter_rng.mix(keys, steps)[:, None], list_numbers)
        return torch.minimum((counter_rng.uniform(bits) * candidates).long(), candidates - 1)

    def _replay(self, slot: int, prompt: int, start: int, stop: int) -> _Replay:
        """Decode's bookkeeping of one request without the attention: a loop over the generated tokens."""
        _, L, key = self.tables.request_params[slot].tolist()
        layers, heads = self._list_numbers.shape
        device = self._list_numbers.device
        keys = torch.tensor([key], device=device)
        expiry = torch.full((layers, heads, stop - prompt), NEVER, dtype=torch.int64, device=device)
        tokens = torch.zeros(layers, heads, 0, dtype=torch.int64, device=device)
        tokens_before, ring = tokens, self._ring[slot].clone()
        for step in range(stop - prompt):
            if prompt + step == start:
                tokens_before = tokens.clone()
            length = torch.tensor(prompt + step + 1)
            size = tokens.shape[2]
            if prompt + size < int(self._budget(torch.tensor(prompt), torch.tensor(L), length)):
                # Room is left: the token gets the next place.
                place = torch.full((layers, heads), size, device=device)
                tokens = torch.cat([tokens, torch.full((layers, heads, 1), step, device=device)], 2)
            else:
                # The token takes the place of a victim, which expires at this step's query.
                steps = torch.tensor([step], device=device)
                rank = self._draw_rank(keys, steps, self._list_numbers.view(1, -1), torch.tensor([[size]]))
                place = _skip_safe_places(rank.view(layers, heads), ring - prompt)
                victim = tokens.gather(2, place[..., None])
                expiry.scatter_(2, victim, prompt + step)
                tokens.scatter_(2, place[..., None], step)
            if self._num_safe:
                ring[:, :, step % self._num_safe] = prompt + place
        self._ring[slot] = ring
        return _Replay(stop, expiry, tokens, tokens_before)


def _skip_safe_places(rank: Tensor, safe: Tensor) -> Tensor:
    """The ``rank``-th place that is not among the safe ones: every safe place at or below it pushes it up by one.

    Args:
        rank: (…) int64.
        safe: (…, number of safe places) int64, places after the prompt's.
    """
    order = safe.sort(dim=-1).values - torch.arange(safe.shape[-1], device=safe.device)
    return rank + (order <= rank[..., None]).sum(-1)
