"""Runs a method of `hyperscale.methods` by its own `State`, on a worker's lists: a place in a list is a slot of a row.

The state is the torch engine's, called in the same order, so its decisions are the torch engine's too. What it keeps of
a request lies by slot of the worker's tables (`hyperscale.engines.vllm.worker.methods.stored_state`). On CUDA kernels
take the decode steps of most methods (`hyperscale.engines.vllm.worker.methods.fused`), and find there what the state
keeps.

Prompts are prefilled densely, in chunks or at once. When the last of a prompt's tokens has been processed, the state
says what stays (`finish_prompts`). Rules that prune rows at intervals do so between two steps (`prune_full_rows`); when
that is the case the host knows by counting, so nothing waits for the device. They run by a subclass,
`hyperscale.engines.vllm.worker.methods.interval`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape, host_model
from hyperscale.engines.vllm.worker.methods.stored_state import StoredState
from hyperscale.engines.vllm.worker.rows import PASS_BYTES, Rows
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.kv.prefilled import PrefilledPrompt, live_first_order
from hyperscale.methods.core.base import DecodeStep, Entrant, LayerInput, Method
from hyperscale.methods.core.interval import IntervalMethod
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.utils.device_copy import upload

if TYPE_CHECKING:
    from hyperscale.engines.vllm.worker.methods.fused import FusedDecode
    from hyperscale.engines.vllm.worker.methods.queries.received_attention import ReceivedAttention


@dataclass
class _Running:
    """A request as the host knows it.

    Attributes:
        prompt: P.
        L: Most new tokens.
        noise_key: Key of its noise.
        entries: Entries of each of its rows, which all rows have alike; 0 until its prompt is finished.
        alone: Whether the prompt's last token was processed alone, in a decode step.
        queries: By layer, the prompt's last queries so far, (query heads, tokens, head_dim).
    """

    prompt: int
    L: int
    noise_key: int
    entries: int = 0
    alone: bool = False
    queries: dict[int, Tensor] = field(default_factory=dict)


class WorkerHosted(WorkerMethod):
    """See the module.

    Attributes:
        method: The method.
        shape: What its state was told of the model.
        state: Its state.
        stored: What the state keeps, by slot; if its own tensors are not (`by_slot`).
        reserved: Whether the state's tensors have all the room that they will ever need.
        fused: Kernels that take the decode steps; None if the state takes them itself.
        received: Weighs a prompt's queries as they come; None if they are kept until the prompt ends, or not looked at.
        reads: (slots,) int64, entries that each slot's last decode step read, over layers and heads; of selectors only.
        scale: Factor on the scores.
        last_queries: (slots, layers, query heads, head_dim), the query of each one's last decode step, if the rule
            looks at a prompt's: a graph keeps no others. That of its prompt's last token, if the rule looks at no more.
    """

    def __init__(
        self, tables: EntryTables, options: Options, method: Method, shape: ModelShape, max_tokens: int
    ) -> None:
        """An empty state.

        Args:
            tables: The worker's tables.
            options: The engine's options.
            method: The method.
            shape: What the state asks of the model.
            max_tokens: Most tokens of a request.

        Raises:
            MethodError: The method cannot run on this model.
        """
        super().__init__(tables, options)
        self.method, self.shape = method, shape
        self.fused: FusedDecode | None = None
        self.received: ReceivedAttention | None = None
        device, count = tables.expiry.device, len(tables.lens)
        self._key_bytes = shape.head_dim * shape.dtype.itemsize
        self.state = method.start(host_model(tables, shape, device))
        self.stored = StoredState(self.state, count)
        self._running: dict[int, _Running] = {}
        self.scale = 1.0
        self._no_hidden = torch.empty(0, device=device)
        self.selects = method.kind == "selector"
        self.reads = torch.zeros(count, dtype=torch.int64, device=device)
        self._max_tokens, self._capacity = max_tokens, _most_entries(method, max_tokens)
        records = options.full_graphs and device.type in ("cuda", "meta")  # what a graph has written to may not grow
        self.reserved = records or method.kind != "selector"  # whose bounds would take much memory
        if self.reserved:
            self.state.reserve(self._capacity, max_tokens)
        self.last_queries = torch.zeros(
            count if self.keeps_last_queries else 0,
            tables.layers,
            shape.query_heads,
            shape.head_dim,
            dtype=shape.dtype,
            device=device,
        )
        # Of the decode step that runs: slots, lengths (layers, requests, heads), and which tokens are still a prompt's.
        self._slots = self._in_prompt = torch.zeros(0, dtype=torch.int64, device=device)
        self._lens = torch.zeros(tables.layers, 0, tables.heads, dtype=torch.int64, device=device)

    @property
    def keeps_chunks(self) -> bool:
        """See `WorkerMethod.keeps_chunks`: chunks are of prompts, which are evicted from when they have ended."""
        return True

    @property
    def by_slot(self) -> bool:
        """Whether the rows of the state's own tensors are slots."""
        return self.fused is not None and self.fused.by_slot

    @property
    def keeps_last_queries(self) -> bool:
        """Whether the query of each slot's last decode step is kept, as it may end a prompt."""
        return self.method.prompt_queries(1) > 0

    @property
    def collects_queries(self) -> bool:
        """Whether the rule looks at more of a prompt than its last query."""
        return self.method.prompt_queries(self._max_tokens) > 1

    @property
    def needs_weights(self) -> bool:
        """Whether `observe` is to be called."""
        return self.method.needs_attention

    # -- requests ---------------------------------------------------------------------------------------------------

    def open_request(self, slot: int, prompt: int, L: int, noise_key: int) -> None:
        """A request has got a slot, and nothing of it has been processed."""
        self._running[slot] = _Running(prompt, L, noise_key)
        if self.received is not None:
            self.received.open(slot, prompt)

    def close_request(self, slot: int) -> None:
        """A request has lost its slot."""
        self._running.pop(slot, None)
        if self.received is not None:
            self.received.close(slot)

    def flush(self) -> None:
        """See `WorkerMethod.flush`."""
        if self.received is not None:
            self.received.flush()

    def keep_queries(self, slot: int, layer: int, queries: Tensor, first: int, scale: float) -> None:
        """Keep what the rule looks at of a prompt's queries.

        Args:
            slot: The request's slot.
            layer: The layer.
            queries: (tokens, query heads, head_dim), after RoPE.
            first: Position of the first of them.
            scale: Factor on the scores.
        """
        running = self._running[slot]
        needed = self.method.prompt_queries(running.prompt)
        part = queries[max(running.prompt - needed - first, 0) : max(running.prompt - first, 0)]
        self.scale = scale
        if len(part) and not self.collects_queries:
            self.last_queries[slot, layer] = part[-1]
        elif len(part):
            part = part.transpose(0, 1).clone()
            before = running.queries.get(layer)
            running.queries[layer] = part if before is None else torch.cat([before, part], 1)

    def keep_last_queries(self, layer: int, slots: Tensor, queries: Tensor, scale: float) -> None:
        """The same of rules that look at a prompt's last query alone, of several requests at once.

        Args:
            layer: The layer.
            slots: (requests,) int64.
            queries: (requests, query heads, head_dim), of the last token of each one's chunk.
            scale: Factor on the scores.
        """
        self.scale = scale
        self.last_queries[:, layer].index_copy_(0, slots, queries)

    def weigh_alone(self, alone: Sequence[tuple[int, int]], rows: Rows) -> None:
        """Weigh tokens of prompts that came one by one in a step.

        Args:
            alone: Slots, and tokens of each sequence with this one.
            rows: The lists.
        """
        if self.received is not None:
            self.received.add_alone(alone, self.last_queries, rows, self._key_bytes, self.scale)

    def finish_prompts(self, ended: Sequence[tuple[int, bool]], rows: Rows) -> None:
        """All of some prompts has been processed: evict what the rule does not keep, and admit the requests.

        Args:
            ended: The requests' slots, and whether the step that ended each prompt processed one token of it.
            rows: The lists.
        """
        pruned = []
        for slot, alone in ended:
            running = self._running[slot]
            running.alone = alone
            if self._finish_prompt(slot, running, rows):
                pruned.append((slot, running.entries))
        if pruned:
            rows.shrink(pruned)

    def _finish_prompt(self, slot: int, running: _Running, rows: Rows) -> bool:
        """Evict from one prompt and admit its request; returns whether anything was evicted."""
        tables, P = self.tables, running.prompt
        slots = upload([slot], tables.expiry.device)
        count = running.entries = self._entries_of_prompt(running)
        counts = torch.full_like(slots, count)
        all_keys: list[Tensor] = []
        all_orders: list[Tensor] = []
        all_scores: list[Tensor] = []
        # All layers are read at once and moved at once, as far as memory allows.
        layers = max(PASS_BYTES // (tables.heads * P * self._key_bytes), 1)
        for first in range(0, tables.layers, layers):
            part = slice(first, min(first + layers, tables.layers))
            keys, numbers = rows.read_keys(slots, part, P)[0], range(part.start, part.stop)
            live, scores = self.state.prune_prompt_layers(numbers, self._view(slot, running, numbers, keys))
            order = None if live is None else live_first_order(live)[..., :count]
            if order is not None:
                all_orders.append(order)
                if count:  # a small budget may leave nothing of a short prompt
                    rows.move(slots, part, order[None], counts)
            if scores is not None:
                all_scores.append(scores if order is None else scores.gather(-1, order))
            all_keys += list(keys if self.selects else keys[:, :, :0])
        running.queries.clear()
        if self.received is not None:
            self.received.close(slot)
        if all_orders:
            tables.lens.index_fill_(0, slots, count)
        prompt = PrefilledPrompt(
            P,
            all_keys,
            all_keys,
            torch.full((tables.layers, tables.heads), count, device=slots.device),
            None,
            torch.cat(all_orders) if all_orders else None,
            torch.cat(all_scores) if all_scores else None,
        )
        self.state.admit(slot if self.by_slot else 0, [Entrant(running.noise_key, running.L)], prompt)
        if not self.by_slot:
            self.stored.save(slots)
        return bool(all_orders)

    def _view(self, slot: int, running: _Running, layers: range, keys: Tensor) -> PrefillView:
        """Some layers of a prompt as the state looks at them; keys are (layers, heads, P, head_dim)."""
        if self.received is not None:
            return self.received.view(slot, layers, keys, self.scale, running.L)
        queries = self._prompt_queries(slot, running, layers, keys)
        return PrefillView(queries, keys, keys[:, :, :0], self.scale, running.L)  # no rule looks at values

    def _prompt_queries(self, slot: int, running: _Running, layers: range, keys: Tensor) -> Tensor:
        """(layers, query heads, tokens, head_dim): of a prompt's queries the last, as many as the rule looks at."""
        kept = [running.queries[layer] for layer in layers if layer in running.queries]
        if len(self.last_queries) and not self.collects_queries:
            return self.last_queries[slot, layers.start : layers.stop, :, None]
        last = torch.stack(kept) if kept else None
        if running.alone and len(self.last_queries):
            # The prompt's last token came alone, in a decode step.
            alone = self.last_queries[slot, layers.start : layers.stop, :, None]
            last = alone if last is None else torch.cat([last, alone], 2)
            last = last[:, :, -self.method.prompt_queries(running.prompt) :]
        return keys[:, :, :0] if last is None else last

    def _entries_of_prompt(self, running: _Running) -> int:
        """Entries of each row after the prompt, which all rows have alike."""
        allowance = self.method.allowance(running.prompt, 2, running.L)
        if self.method.kind == "selector" or allowance is None:
            return running.prompt
        if not isinstance(self.method, IntervalMethod):
            return min(running.prompt, allowance - 1)
        return running.prompt if running.prompt < allowance else self.method.length_after_pruning(allowance, 0)

    # -- decode steps -----------------------------------------------------------------------------------------------

    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """A decode step begins.

        Args:
            slots: (requests,) int64; slot 0 is padding.
            positions: (requests,) int64, of the tokens being processed.
        """
        # Rows that pad a batch have any position, and states index by them.
        positions = torch.where(slots == 0, 0, positions)
        if self.fused is not None:
            self.fused.begin(slots, positions)
            return
        self._slots = slots
        self.stored.load(slots)
        self._in_prompt = positions < self.tables.request_params[slots, 0]
        self._lens = self.tables.lens[slots].transpose(0, 1).to(torch.int64, memory_format=torch.contiguous_format)
        if self.selects:
            self.reads.index_fill_(0, slots, 0)
        self.state.begin(DecodeStep(positions, self._lens))

    def choose_places(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float, width: int
    ) -> tuple[Tensor, Tensor | None]:
        """Where each list writes its new entry, and what is read.

        Args:
            layer: The layer.
            queries: (requests, query heads, head_dim), after RoPE.
            keys: (requests, heads, head_dim), after RoPE.
            values: As keys.
            scale: Factor on the scores.
            width: At least the entries of the longest list once the new one is there.

        Returns:
            (requests, heads) int64, a list's length to append; and (requests, heads, group, width) bool, or None for
            all.
        """
        if len(self.last_queries):
            self.last_queries[self._slots, layer] = queries
        layer_input = LayerInput(self._no_hidden, queries, keys, values, scale, width)
        slots = self.state.write_slots(layer, layer_input)
        selected = self.state.select(layer, layer_input)
        # A prompt's last token may come alone: it is a prompt's all the same, which is dense.
        lens, alone = self._lens[layer], self._in_prompt[:, None]
        places = torch.where(alone, lens, slots)
        torch.maximum(lens, places + 1, out=lens)
        if selected is not None:
            place = torch.arange(width, device=lens.device)
            selected = (selected | alone[..., None, None]) & (place < lens[..., None, None])
            read = selected.any(2).sum((1, 2))
            self.reads.index_add_(0, self._slots, read)
        return places, selected

    def observe(self, layer: int, weights: Tensor) -> None:
        """The step's attention in a layer, (requests, heads, group, width) float32 by place; 0 behind a list's end."""
        self.state.observe(layer, weights)

    def end(self) -> None:
        """A decode step has ended."""
        self.stored.save(self._slots)

    # -- between two steps ------------------------------------------------------------------------------------------

    def count_step(self, slot: int, computed_tokens: int) -> None:
        """A decode step of a request has ended, after so many tokens of its sequence."""
        running = self._running[slot]
        running.entries += 1
        allowance = self.method.allowance(running.prompt, computed_tokens + 1 - running.prompt, running.L)
        if allowance is not None and not self.selects:
            running.entries = min(running.entries, allowance)

    @property
    def widest(self) -> int:
        """At least the entries of the longest list after the next step."""
        longest = max((run.entries or run.prompt for run in self._running.values()), default=0) + 1
        return min(longest, self._capacity)

    @property
    def capacity(self) -> int:
        """The most entries of any list that a state looks at: all but a prompt's before it is finished."""
        return self._capacity

    def prune_full_rows(self, positions: dict[int, int], rows: Rows) -> None:
        """Prune the rows that have no room for the next token, of rules that prune at intervals.

        Args:
            positions: Slot to the position of its next token, of requests that have decoded.
            rows: The lists.
        """


def _most_entries(method: Method, max_tokens: int) -> int:
    """The most entries of a row that is no longer a prompt's, of requests of so many tokens at most."""
    allowances = [method.allowance(P, max_tokens - P, max_tokens - P) for P in (1, max_tokens - 1)]
    if method.kind == "selector":
        return max_tokens
    return min(max(max_tokens if entries is None else entries for entries in allowances), max_tokens)
