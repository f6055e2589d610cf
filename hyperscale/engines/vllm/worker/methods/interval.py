"""Runs a method that prunes full rows at intervals: its state lies by slot, and all layers are pruned at once.

Between two prunings rows only grow, so a step has nothing to ask of the state: a list's length is the place of its new
entry. What the rule knows of a request's queries is written to the request's slot as they come. A slot is a chain to
the state, so nothing is copied to and fro.

A prompt that has been processed is a full row like any other: it is pruned by the same call, as a request whose next
position is P. All layers of all requests that are full are pruned together, in as many passes as the copy of their keys
takes of `PASS_BYTES`.

A pruning is some hundred small operations, which the host needs longer to launch than the device to run. Where decode
steps are CUDA graphs, so is the pruning of a request that decodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.methods.model_shape import ModelShape
from hyperscale.engines.vllm.worker.methods.queries.recorded_queries import RecordedQueries, StateQueries
from hyperscale.engines.vllm.worker.rows import PASS_BYTES, Rows
from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.kv.row_entries import RowEntries
from hyperscale.methods.core.base import DecodeStep
from hyperscale.methods.core.interval import IntervalMethod, IntervalState
from hyperscale.methods.triattention import QuerySums
from hyperscale.utils.cuda_graphs import CudaGraphs, StepCalls
from hyperscale.utils.device_copy import upload

_MOST_REPEATED = 8
"""Requests of a step that are pruned one by one, by a graph each; more are pruned together, launched anew."""


@dataclass(frozen=True)
class _FullRows:
    """A request whose rows are full.

    Attributes:
        slot: Its slot.
        position: Position of its next token.
        before: Entries of each of its rows.
        after: Entries that stay.
    """

    slot: int
    position: int
    before: int
    after: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        """What the device is told of it."""
        return self.slot, self.position, self.after


class WorkerInterval(WorkerHosted):
    """See the module."""

    method: IntervalMethod

    def __init__(
        self, tables: EntryTables, options: Options, method: IntervalMethod, shape: ModelShape, max_tokens: int
    ) -> None:
        """An empty state; see `WorkerHosted`."""
        super().__init__(tables, options, method, shape, max_tokens)
        self._interval_state = cast("IntervalState", self.state)
        self._positions = torch.zeros(len(tables.lens), dtype=torch.int64, device=tables.expiry.device)
        self._opened: dict[int, tuple[int, int, int]] = {}  # slot to facts, since the last `flush`
        # The budget of each slot's rows when it was last asked for: budgets only grow.
        self._budgets: dict[int, int] = {}
        self._targets = torch.zeros(tables.layers, 0, tables.heads, dtype=torch.int64, device=tables.expiry.device)
        # Prunings of one request by the widths they are made for: what the device is told of the request, and graphs.
        self._told: dict[tuple[int, int], Tensor] = {}
        self.calls: StepCalls | None = None  # None: every pruning is launched anew
        if options.full_graphs and tables.expiry.device.type == "cuda":
            self.calls = CudaGraphs(tables.expiry.device)
        self._queries: RecordedQueries | None = None  # None: the rule looks at none
        if method.prompt_queries(1):
            self._queries = StateQueries(self._interval_state, method.prompt_queries(max_tokens))

    def use_kernels(self) -> None:
        """Record queries by kernels, where there are any for the rule."""
        if isinstance(self.state, QuerySums):
            from hyperscale.engines.vllm.worker.methods.queries.summed_queries import SummedQueries

            self._queries = SummedQueries(self.state)

    @property
    def by_slot(self) -> bool:
        """See `WorkerHosted.by_slot`: always."""
        return True

    @property
    def keeps_last_queries(self) -> bool:
        """See `WorkerHosted.keeps_last_queries`: they are where the others are."""
        return False

    # -- requests ---------------------------------------------------------------------------------------------------

    def open_request(self, slot: int, prompt: int, L: int, noise_key: int) -> None:
        """See `WorkerMethod.open_request`."""
        super().open_request(slot, prompt, L, noise_key)
        self._opened[slot] = prompt, self.method.floor(prompt, L), noise_key
        self._budgets[slot] = 0

    def flush(self) -> None:
        """See `WorkerMethod.flush`."""
        if self._opened:
            facts = [list(column) for column in zip(*self._opened.values(), strict=True)]
            numbers = upload([number for row in ([*self._opened], *facts) for number in row], self._positions.device)
            slots, *_ = rows = numbers.view(4, -1)
            self._interval_state.open_chains(slots, rows[1:])
            self._opened.clear()

    # -- queries ----------------------------------------------------------------------------------------------------

    def begin(self, slots: Tensor, positions: Tensor) -> None:
        """See `WorkerHosted.begin`."""
        # Rows only grow: where a layer's lists end is where its new entries go.
        self._targets = self.tables.lens[slots].transpose(0, 1).to(torch.int64, memory_format=torch.contiguous_format)
        if self._queries is not None:
            # Rows that pad a batch are slot 0, which is nobody's.
            self._queries.begin_decode(slots, torch.where(slots == 0, 0, positions))

    def choose_places(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float, width: int
    ) -> tuple[Tensor, Tensor | None]:
        """See `WorkerHosted.choose_places`."""
        if self._queries is not None:
            self._queries.add_decode(layer, queries, scale)
        return self._targets[layer], None

    def end(self) -> None:
        """See `WorkerHosted.end`."""

    def begin_chunks(self, slots: Tensor, starts: Tensor, offsets: Sequence[int]) -> None:
        """See `RecordedQueries.begin_chunks`."""
        if self._queries is not None:
            self._queries.begin_chunks(slots, starts, offsets)

    def record_chunks(self, layer: int, queries: Tensor, scale: float) -> None:
        """See `RecordedQueries.add_chunks`."""
        if self._queries is not None:
            self._queries.add_chunks(layer, queries, scale)

    def keep_queries(self, slot: int, layer: int, queries: Tensor, first: int, scale: float) -> None:
        """See `WorkerHosted.keep_queries`."""
        numbers = torch.tensor([[slot], [first]], device=queries.device)
        self.begin_chunks(numbers[0], numbers[1], [0, len(queries)])
        self.record_chunks(layer, queries, scale)

    # -- prunings ---------------------------------------------------------------------------------------------------

    def finish_prompts(self, ended: Sequence[tuple[int, bool]], rows: Rows) -> None:
        """See `WorkerHosted.finish_prompts`."""
        full = []
        for slot, _ in ended:
            running = self._running[slot]
            running.entries = self._entries_of_prompt(running)
            if running.entries < running.prompt:
                full.append(_FullRows(slot, running.prompt, running.prompt, running.entries))
        self._prune(full, rows)
        if full:
            rows.shrink([(row.slot, row.after) for row in full])

    def count_step(self, slot: int, computed_tokens: int) -> None:
        """See `WorkerHosted.count_step`."""
        self._running[slot].entries += 1

    def prune_full_rows(self, positions: dict[int, int], rows: Rows) -> None:
        """See `WorkerHosted.prune_full_rows`."""
        full = []
        for slot, position in positions.items():
            running = self._running[slot]
            if running.entries < self._budgets[slot]:
                continue
            budget = self.method.budget_after(running.prompt, position + 2 - running.prompt, running.L)
            self._budgets[slot] = budget
            if running.entries >= budget:
                pinned = running.prompt if self.method.pin_prompt else 0
                after = self.method.length_after_pruning(budget, pinned)
                full.append(_FullRows(slot, position, running.entries, after))
                running.entries = after
        if self.calls is None or len(full) > _MOST_REPEATED:
            self._prune(full, rows)
        elif full:
            numbers = upload([number for row in full for number in row.numbers], self._positions.device).view(-1, 3, 1)
            for row, told in zip(full, numbers, strict=True):
                self._repeat_pruning(self.calls, row, told, rows)

    def _repeat_pruning(self, calls: StepCalls, row: _FullRows, told: Tensor, rows: Rows) -> None:
        """Prune one request by a graph that serves rows of about its length; ``told`` is (3, 1), its `numbers`."""
        most = self.tables.page_table.shape[3] * self.tables.page_tokens
        width, kept = (min(_round_up(count), most) for count in (row.before, row.after))
        if (width, kept) not in self._told:
            self._told[width, kept] = told.clone()
        numbers = self._told[width, kept].copy_(told)

        def prune() -> Tensor:
            self._prune_told(numbers, [(width, kept)], rows)
            return numbers

        calls.run(("pruning", width, kept), prune)

    def _prune(self, full: Sequence[_FullRows], rows: Rows) -> None:
        """Prune rows together, and set their lengths."""
        if not full:
            return
        # Requests of about equal length together, as a pass is as wide as its longest row.
        full = sorted(full, key=lambda row: row.before)
        columns = zip(*(row.numbers for row in full), strict=True)
        numbers = upload([number for column in columns for number in column], self._positions.device)
        self._prune_told(numbers.view(3, -1), [(row.before, row.after) for row in full], rows)

    def _prune_told(self, numbers: Tensor, sizes: Sequence[tuple[int, int]], rows: Rows) -> None:
        """Prune rows of which the device has been told, and set their lengths.

        Args:
            numbers: (3, requests) int64, `_FullRows.numbers`.
            sizes: Of each request at least the entries of its rows before and after, in ascending order of the first.
            rows: The lists.
        """
        tables = self.tables
        slots, positions, after = numbers
        self._positions[slots] = positions
        self._interval_state.chains_to_prune(DecodeStep(self._positions, tables.lens.transpose(0, 1)))
        layer_bytes = tables.heads * self._key_bytes  # of an entry
        begin = 0
        while begin < len(sizes):
            # As many requests as fit in a pass with one layer each, then as many layers as fit with these requests.
            end = begin + 1
            while end < len(sizes) and (end + 1 - begin) * sizes[end][0] * layer_bytes <= PASS_BYTES:
                end += 1
            width, kept = sizes[end - 1][0], max(kept for _, kept in sizes[begin:end])
            layers = max(PASS_BYTES // ((end - begin) * width * layer_bytes), 1)
            for first in range(0, tables.layers, layers):
                part = slice(first, min(first + layers, tables.layers))
                self._prune_pass(slots[begin:end], after[begin:end], part, width, kept, rows)
            begin = end
        tables.lens[slots] = after.to(torch.int32)[:, None, None]

    def _prune_pass(self, slots: Tensor, after: Tensor, layers: slice, width: int, kept: int, rows: Rows) -> None:
        """Prune some layers of some requests.

        Args:
            slots: (requests,) int64.
            after: (requests,) int64, entries that stay in each row.
            layers: The layers.
            width: Entries of the longest row.
            kept: The most entries that stay in a row.
            rows: The lists.
        """
        keys = rows.read_keys(slots, layers, width)  # (requests, layers, heads, width, head_dim)
        requests, count, heads = keys.shape[:3]
        place = torch.arange(width, device=keys.device)
        live = place < self.tables.lens[slots, layers][..., None]
        # A row of the state's batch is a layer of a request.
        layer = torch.arange(layers.start, layers.stop, device=keys.device).repeat(requests)
        chains = slots[:, None].expand(-1, count).reshape(-1)
        values = rows.read_values(slots, layers, width).flatten(0, 1) if self.method.looks_at_values else keys[:0, 0]
        entries = RowEntries(keys.flatten(0, 1), values, live.flatten(0, 1))
        stays = self._interval_state.prune(layer, chains, entries).view(requests, count, heads, width)
        # The places of what stays, in order; what does not stay is written behind the last of them.
        target = torch.where(stays, stays.cumsum(-1) - 1, kept)
        source = place.new_zeros(requests, count, heads, kept + 1)
        source = source.scatter_(-1, target, place.expand_as(target))[..., :kept]
        rows.move(slots, layers, source, after)


def _round_up(count: int) -> int:
    """The next multiple of 16, of more than 128 that of an eighth of the power of two below: graphs serve up to it."""
    step = 1 << max(count.bit_length() - 4, 4)
    return -(-count // step) * step
