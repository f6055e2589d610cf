"""The report of a step with chunks, on CUDA: one tensor, which the last layer fills, and one copy back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hyperscale.engines.vllm.kernels.decode.step_report import ROWS
from hyperscale.engines.vllm.protocol import RequestReport, ceil_div
from hyperscale.engines.vllm.worker.cache_worker import RunningRequest


class StepNumbers:
    """What a step with chunks is reported with, in one tensor, so that it is one copy.

    Attributes:
        starts: Where the tokens of each request of the batch begin, and where the last one's end.
        num_decodes: How many of the requests, all in front, decode.
        all_numbers: (any,) int64: `gathered`, and ``query_reads`` behind it.
        gathered: int32, see `gather_step_report`.
        query_reads: (tokens,) int64, entries that each query read, over layers and heads, or, of prompts, those of all
            of a chunk at its first token; None if nobody asks.
    """

    def __init__(
        self, slots: int, starts: Sequence[int], num_decodes: int, device: torch.device, *, counts: bool
    ) -> None:
        """Zeros.

        Args:
            slots: Of the tables.
            starts: (requests + 1,), where the tokens of each request of the batch begin.
            num_decodes: How many of the requests, all in front, decode.
            device: The tables'.
            counts: Whether reads of queries are counted.
        """
        self.starts, self.num_decodes = starts, num_decodes
        self._slots, self._requests = slots, len(starts) - 1
        tokens = starts[-1] if counts else 0
        # Of int64, even: what follows begins at a multiple of 16 bytes.
        self._size = 2 * ceil_div(ROWS * slots + self._requests, 4)
        self.all_numbers = torch.zeros(self._size + tokens, dtype=torch.int64, device=device)
        self.gathered = self.all_numbers.view(torch.int32)
        self.query_reads = self.all_numbers[self._size :] if tokens else None

    def split(self, numbers: Any) -> tuple[Any, list[int], Any]:
        """The parts of ``all_numbers`` once they are on the host.

        Args:
            numbers: The numbers, as an array.

        Returns:
            Flat, what is gathered of slots; the slots of the batch's requests; and (tokens,) int64: reads of its
            queries.
        """
        # An array's operations cost more than the few numbers that are wanted.
        gathered, end = memoryview(numbers)[: self._size].cast("B").cast("i"), ROWS * self._slots
        return gathered, [gathered[end + row] for row in range(self._requests)], numbers[self._size :]


@dataclass(frozen=True)
class ScheduledRequest:
    """One request of a step that is to be reported, as far as the host knows it; see `RunningRequest`."""

    request: str
    generation: int
    computed_tokens: int
    tokens: int
    prompt_tokens: int
    slot: int

    @classmethod
    def of(cls, name: str, generation: int, tokens: int, running: RunningRequest) -> "ScheduledRequest":
        """A copy: when the report is read, the next step may have changed ``running`` already."""
        return cls(name, generation, running.computed_tokens, tokens, running.prompt_tokens, running.slot)


def read_report(
    requests: list[ScheduledRequest],
    live_after_prompt: Mapping[str, int],
    report: StepNumbers | None,
    numbers: Any,
    num_slots: int,
    num_lists: int,
    has_reads: bool,
    counts_prompts: bool,
) -> dict[str, RequestReport]:
    """Reports from the numbers that `CudaCacheWorker.report_step` has sent.

    Args:
        requests: The step's requests.
        live_after_prompt: What the first decode step sees of those whose prompt ended with a single token.
        report: The step's; None if it had no chunks.
        numbers: Array of what a step with chunks, or without, gathers.
        num_slots: Slots of the tables.
        num_lists: Lists of a request.
        has_reads: Whether what decode steps read was gathered.
        counts_prompts: Whether reads of prompts are counted.
    """
    # Slots tell which request of the batch is which: the batch is in vLLM's order, the report in the scheduler's.
    chunk_rows: Mapping[int, int] = {}
    starts: Sequence[int] = ()
    query_reads = None
    if report is not None:
        gathered, slots, query_reads = report.split(numbers)
        starts = report.starts
        if report.query_reads is not None:
            chunk_rows = {slot: row for row, slot in enumerate(slots) if row >= report.num_decodes}
    else:
        gathered = memoryview(numbers).cast("B").cast("i")
    reports = {}
    for request in requests:
        pages, superblocks, live, step_reads = (gathered[row * num_slots + request.slot] for row in range(ROWS))
        # The kernels cannot raise: pages past the supply went to block 0, and here it is noticed.
        assert pages <= superblocks * num_lists, "page over-commit"
        row = chunk_rows.get(request.slot)  # None: a single token, which reads all that there is
        live_entries: tuple[int, ...] = ()
        is_decode = request.computed_tokens > request.prompt_tokens
        if request.computed_tokens == request.prompt_tokens:  # what the prompt leaves to the first decode step
            live_entries = (live_after_prompt.get(request.request, live),)
        elif is_decode and row is not None and query_reads is not None:
            end = starts[row + 1]
            num_decoded = min(request.tokens, request.computed_tokens - request.prompt_tokens)
            live_entries = tuple(query_reads[end - num_decoded : end].tolist())
        elif is_decode:
            live_entries = (live,)
        prompt_part = None
        first, last = request.computed_tokens - request.tokens, min(request.computed_tokens, request.prompt_tokens)
        if counts_prompts and first < last:
            reads = live
            if row is not None and query_reads is not None:
                reads = int(query_reads[starts[row] : starts[row] + last - first].sum())
            prompt_part = first, last, reads
        reports[request.request] = RequestReport(
            request.generation,
            request.computed_tokens,
            pages,
            live_entries,
            (step_reads,) if has_reads and is_decode else None,
            prompt_part,
        )
    return reports
