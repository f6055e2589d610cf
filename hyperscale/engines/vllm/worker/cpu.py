"""The CPU's worker: the tables are in reach at any time, and a step's report is read off them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hyperscale.engines.vllm.protocol import RequestReport, SuperblockUpdate
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker, RunningRequest
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention


@dataclass
class CpuStep:
    """The requests of a forward pass, in the order of the batch.

    Attributes:
        first_blocks: (requests,) int32, the id of each one's first superblock.
        starts: Index of each one's first token in the batch, and the number of tokens.
        computed_tokens: Tokens of each one once the pass is done.
        slots: Slots; empty until the first layer asks (`CpuCacheWorker.resolve_slots`), as a step's instructions
            arrive after vLLM has made this object.
        query_reads: (tokens,) int64, the entries that each query read so far, over layers and heads; of chunks, and of
            single tokens all that their lists hold.
    """

    first_blocks: Tensor
    starts: list[int]
    computed_tokens: list[int]
    slots: list[int] = field(default_factory=list)
    query_reads: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class CpuCacheWorker(CacheWorker):
    """See the module.

    Attributes:
        attention: The mechanism.
    """

    def __init__(self, attention: ReferenceAttention) -> None:
        super().__init__(attention.tables, attention.method)
        self.attention = attention
        self._step: CpuStep | None = None

    def _forget_method(self) -> None:
        super()._forget_method()
        del self.attention.method

    def _take_method(self, method: WorkerMethod) -> None:
        super()._take_method(method)
        self.attention.method = method

    def begin_step(
        self,
        updates: Sequence[SuperblockUpdate],
        released_requests: Sequence[str],
        scheduled_tokens: Mapping[str, tuple[int, int]],
    ) -> None:
        """See `CacheWorker.begin_step`."""
        super().begin_step(updates, released_requests, scheduled_tokens)
        self._step = None

    def resolve_slots(self, step: CpuStep) -> CpuStep:
        """Find the slots of a step's requests, once."""
        if not step.slots:
            step.slots = self.tables.slot_of_block[step.first_blocks.long()].tolist()
            step.query_reads = torch.zeros(step.starts[-1], dtype=torch.int64, device=step.first_blocks.device)
            self._step = step
        return step

    def report_step(self) -> dict[str, RequestReport]:
        """See `CacheWorker.report_step`; the pages that the step left empty go back first."""
        step = self._step
        if step is None:
            return {}
        self._finish_prompts(self.attention.rows)
        reports = {}
        # The batch is in vLLM's order, the scheduled requests in the scheduler's: they meet by slot.
        order = {slot: index for index, slot in enumerate(step.slots)}
        for request, (generation, _) in self._scheduled_tokens.items():
            running = self.requests[request]
            index = order[running.slot]
            # Before pages are counted: superblocks that the step has emptied are then free for the next one.
            self.attention.compact(running.slot)
            computed_tokens = step.computed_tokens[index]
            assert computed_tokens == running.computed_tokens, "tokens were scheduled that the worker has not seen"
            pages = int(self.tables.pages_used[running.slot])
            live_entries = self._live_entries(step, index, running)
            prompt_part = self._prompt_part(step, index, running)
            reports[request] = RequestReport(
                generation, computed_tokens, pages, live_entries, self._read_entries(running), prompt_part
            )
        self._prune_rows(self.attention.rows)
        self._step = None
        return reports

    def _read_entries(self, running: RunningRequest) -> tuple[int, ...] | None:
        """Entries that a decode step of a selector read; None for other methods, which read all that live."""
        method = self.method
        if isinstance(method, WorkerHosted) and method.selects and running.computed_tokens > running.prompt_tokens:
            return (int(method.reads[running.slot]),)
        return None

    def _prompt_part(self, step: CpuStep, index: int, running: RunningRequest) -> tuple[int, int, int] | None:
        """See `RequestReport`."""
        begin, end = step.starts[index], step.starts[index + 1]
        first = step.computed_tokens[index] - (end - begin)
        last = min(step.computed_tokens[index], running.prompt_tokens)
        if not self.method.counts_prompts or first >= last:
            return None
        return first, last, int(step.query_reads[begin : begin + last - first].sum())

    def _live_entries(self, step: CpuStep, index: int, running: RunningRequest) -> tuple[int, ...]:
        """Live entries at each of the step's positions from the prompt's last on."""
        begin, end, computed_tokens = step.starts[index], step.starts[index + 1], step.computed_tokens[index]
        slot, prompt = running.slot, running.prompt_tokens
        if computed_tokens < prompt:
            return ()
        if computed_tokens == prompt:  # what the prompt leaves to the first decode step
            return (self.tables.count_live(slot, prompt),)
        if end - begin == 1:  # a decode step reads all that there is
            return (int(self.tables.lens[slot].sum()),)
        # A chunk with decode steps in it, recomputed after a preemption: each read something else.
        num_decoded = min(end - begin, computed_tokens - prompt)
        return tuple(step.query_reads[end - num_decoded : end].tolist())
