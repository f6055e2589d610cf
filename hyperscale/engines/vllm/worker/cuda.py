"""CUDA's worker: nothing of a step waits for the device, and its report is one copy.

Which requests run, how many tokens of each, and what their prompts are, the host knows; where their lists are and how
long, only the device does. The kernels look it up by the requests' first superblocks. If the host asked for it, it
would wait for all kernels in the queue, in every layer.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk.append import make_room
from hyperscale.engines.vllm.kernels.chunk.fa3 import make_sequences
from hyperscale.engines.vllm.kernels.chunk.plan import ReadCounts
from hyperscale.engines.vllm.kernels.chunk.plan_storage import PlanStorage
from hyperscale.engines.vllm.kernels.decode.step_report import gather_step_report
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.protocol import DecodeReports, RequestReport, SuperblockUpdate
from hyperscale.engines.vllm.worker.cache_rows import CacheRows
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
from hyperscale.engines.vllm.worker.chunk_report import ScheduledRequest, StepNumbers, read_report
from hyperscale.engines.vllm.worker.cuda_step import CudaStep
from hyperscale.engines.vllm.worker.decode_report import DecodeReporter, copy_numbers
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.dmc import WorkerDMC
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.methods.interval import WorkerInterval
from hyperscale.engines.vllm.worker.methods.registry import use_kernels
from hyperscale.engines.vllm.worker.methods.window import WorkerWindow
from hyperscale.engines.vllm.worker.staged_tables import StagedTables


class CudaCacheWorker(CacheWorker):
    """See the module.

    Attributes:
        cache: The cache.
        method: The method.
        fa3: Whether FlashAttention 3 attends for decode steps, and for chunks of which nothing expires.
        fa3_prompts: Whether it attends for such chunks where requests begin, which read nothing of the cache.
    """

    tables: StagedTables

    def __init__(
        self,
        tables: StagedTables,
        method: WorkerMethod,
        cache: PagedCache,
        fa3: bool,
        dtype: torch.dtype | None = None,
        *,
        fa3_prompts: bool = False,
    ) -> None:
        """The worker around a cache.

        Args:
            tables: The tables.
            method: The method.
            cache: The cache.
            fa3: See the class.
            dtype: Of the model; None if the cache is in it.
            fa3_prompts: See the class.
        """
        super().__init__(tables, method)
        self.cache, self.fa3, self.fa3_prompts = cache, fa3, fa3 or fa3_prompts
        self.rows = CacheRows(tables, cache, cache.keys.dtype if dtype is None else dtype)
        self._decode_reporter = DecodeReporter(tables)
        self._step: CudaStep | None = None
        self._in_step = False
        self._launches = StepLaunches()  # of reports of steps with chunks
        # Of prompts whose reads are counted from their beginning; a slice of it is aligned, as kernels want it.
        self._from_zero = torch.zeros(len(tables.lens), dtype=torch.int32, device=tables.lens.device)
        use_kernels(method)
        if self._from_zero.device.type == "cuda":
            tables.compile()

    def _forget_method(self) -> None:
        if isinstance(self.method, WorkerHosted):
            self.method.fused = None  # which refers to the method: its memory is to be free at once
        self._launches = StepLaunches()  # likewise
        super()._forget_method()

    def _take_method(self, method: WorkerMethod) -> None:
        super()._take_method(method)
        use_kernels(method)

    def begin_step(
        self,
        updates: Sequence[SuperblockUpdate],
        released_requests: Sequence[str],
        scheduled_tokens: Mapping[str, tuple[int, int]],
    ) -> None:
        """See `CacheWorker.begin_step`."""
        super().begin_step(updates, released_requests, scheduled_tokens)
        self.tables.flush()  # in the stream before the step's kernels, which read the tables
        self._step, self._in_step = None, True

    def resolve_step(self, step: CudaStep) -> CudaStep:
        """Work out, once for all layers and on the device, what the kernels are told of a step's requests."""
        if step.decodes is not None:
            return step
        n, count = step.num_decodes, len(step.starts) - 1
        blocks = step.first_blocks.clone()  # contiguous and aligned: kernels are compiled for either
        if not (self._in_step or step.capturing):
            # vLLM warms up, and may name superblocks of running requests: block 0 is nobody's.
            blocks.zero_()
        # A request's only token is the last of its computed ones; its position is one less.
        firsts = blocks[:n]
        step.decodes = DecodeRequests(firsts, step.computed_tokens[:n] - 1 if n else firsts)
        if n < count:
            offsets = _aligned(step.offsets[n:] if n else step.offsets)
            # Sizes of launches must be known on the host; ``starts`` is vLLM's own copy there.
            longest = max(b - a for a, b in pairwise(step.starts[n:]))
            lens = step.computed_tokens[n:] if n else step.computed_tokens
            starts = lens - (longest if count - n == 1 else offsets.diff())
            step.chunks = ChunkRequests(blocks[n:].clone() if n else blocks, offsets, starts, longest)
        method = self.method
        keeps_chunks = step.chunks is not None and method.keeps_chunks
        if keeps_chunks or isinstance(method, WorkerHosted | WorkerWindow | WorkerDMC):
            step.slots = self.tables.slot_of_block[blocks.long()].long()
        chunks_decode = step.chunks is not None and self._chunks_decode(n)
        keeps = keeps_chunks and not chunks_decode
        begins = keeps and self.fa3_prompts and self._chunks_begin(n)
        if step.chunks is not None and keeps and (self.fa3 or begins):
            lens = step.computed_tokens[n:]
            assert step.slots is not None
            arguments = (step.chunks.offsets, step.starts[n:], step.slots[n:], lens, self.tables.heads, step.longest)
            step.sequences = make_sequences(*arguments, begins=begins)
            make_room(self.tables, step.chunks, step.slots[n:])
        elif step.chunks is not None:
            shape = (self.tables.layers, self.tables.heads, step.tokens, len(step.chunks.starts))
            step.plans = PlanStorage(*shape, blocks.device, counts=chunks_decode)
        if isinstance(method, WorkerWindow):  # expiries depend on positions alone: the same in all layers
            assert step.slots is not None
            step.decode_expiry = method.expiries(step.slots[:n], step.decodes.positions.long())
            if step.plans is not None:
                expiry = self._chunk_expiry(method, step, step.slots)
                step.chunk_expiry = expiry.expand(self.tables.heads, -1).contiguous()
        if isinstance(method, WorkerHosted):
            self._resolve_hosted(method, step)
        if step.chunks is not None:
            counts = chunks_decode or method.counts_prompts
            step.report = StepNumbers(len(self.tables.lens), step.starts, n, blocks.device, counts=counts)
            if step.report.query_reads is not None:
                since = self._count_from(blocks[n:] if n else blocks)
                # Of prompts only the sum is reported, which stands at their first token then.
                reads = step.report.query_reads.expand(self.tables.heads, -1)
                step.counts = ReadCounts(since, reads, sums=not chunks_decode)
        self._step = step
        return step

    def _count_from(self, first_blocks: Tensor) -> Tensor:
        """From which position on reads of each chunk's queries count, (chunks,) int32."""
        if self.method.counts_prompts:
            return self._from_zero[: len(first_blocks)]
        slots = self.tables.slot_of_block[first_blocks.long()].long()
        return self.tables.request_params[slots, 0].to(torch.int32)

    def _resolve_hosted(self, method: WorkerHosted, step: CudaStep) -> None:
        """Begin the step of a hosted method, and find the slots of prompts, if the rule looks at their queries.

        Where there are prompts the host has to ask the device for their slots then, once in such a step.
        """
        assert step.decodes is not None and step.slots is not None  # noqa: PT018
        n = step.num_decodes
        if n:
            method.begin(step.slots[:n], step.decodes.positions.long())
        if isinstance(method, WorkerInterval):
            if step.chunks is not None:
                method.begin_chunks(step.slots[n:], step.chunks.starts, step.starts[n:])
            return
        sizes = {request: tokens for request, (_, tokens) in self._scheduled_tokens.items()}
        prompts = [run for run in self._scheduled_requests() if run.computed_tokens <= run.prompt_tokens]
        if not prompts or not self._in_step:
            return
        assert all(
            self.requests[request].computed_tokens <= self.requests[request].prompt_tokens
            for request, tokens in sizes.items()
            if tokens > 1
        ), "a hosted method's request was preempted"
        if method.received is not None or not method.collects_queries:
            if method.keeps_last_queries and step.chunks is not None:
                step.chunk_ends = step.chunks.offsets[1:].long() - 1
            return
        stops = {run.slot: run.computed_tokens for run in prompts}
        for row, slot in enumerate(step.slots.tolist()):
            if slot in stops:
                size = step.starts[row + 1] - step.starts[row]
                step.prompts.append((slot, step.starts[row], step.starts[row + 1], stops[slot] - size))

    def _chunk_expiry(self, method: WorkerWindow, step: CudaStep, slots: Tensor) -> Tensor:
        """Expiries of all tokens of the batch, (tokens,) int32."""
        sizes = step.offsets.diff()
        # With its size told, repeat_interleave need not ask the device for it.
        row = torch.arange(len(sizes), device=slots.device).repeat_interleave(sizes, output_size=step.tokens)
        shift = (step.computed_tokens - step.offsets[1:])[row]  # from a token's index in the batch to its position
        return method.expiries(slots[row], (torch.arange(step.tokens, device=slots.device) + shift).long())

    def _chunks_begin(self, num_decodes: int) -> bool:
        """Whether all requests with chunks begin with them."""
        scheduled = [(self.requests[request], tokens) for request, (_, tokens) in self._scheduled_tokens.items()]
        begin = all(running.computed_tokens == tokens for running, tokens in scheduled if tokens > 1)
        return begin and sum(tokens == 1 for _, tokens in scheduled) <= num_decodes

    def _chunks_decode(self, num_decodes: int) -> bool:
        """Whether a chunk has decode steps in it, as after a preemption: then its queries' reads count."""
        sizes = {request: tokens for request, (_, tokens) in self._scheduled_tokens.items()}
        running = self.requests
        past_prompt = any(
            running[request].computed_tokens > running[request].prompt_tokens
            for request, tokens in sizes.items()
            if tokens > 1
        )
        # A batch in an order of its own has single tokens behind a chunk, which are run as chunks of one token.
        return past_prompt or sum(tokens == 1 for tokens in sizes.values()) > num_decodes

    def report_step(self) -> Mapping[str, RequestReport] | Callable[[], Mapping[str, RequestReport]]:
        """See `CacheWorker.report_step`: the numbers are on their way to the host when this returns."""
        step, scheduled_tokens = self._step, self._scheduled_tokens
        self._step, self._in_step = None, False
        if not scheduled_tokens:
            return {}
        if self._only_decodes:
            return self._report_decodes(scheduled_tokens)
        requests = [
            ScheduledRequest.of(name, generation, tokens, self.requests[name])
            for name, (generation, tokens) in scheduled_tokens.items()
        ]
        self._finish_prompts(self.rows)
        if isinstance(self.method, WorkerHosted):
            self._gather(step)  # once more, as prompts that have ended were evicted from
        # A prompt that ended with a single token was handled as a decode step: some of what that saw is gone for the
        # first generated token, whose reads and peak count.
        ends = [request for request in requests if request.computed_tokens == request.prompt_tokens]
        ends = [request for request in ends if request.tokens == 1 and not isinstance(self.method, WorkerHosted)]
        # The lengths are read before the next step's kernels change them: all of it runs in one stream.
        report = None if step is None else step.report  # no step where a graph was replayed, which runs no Python
        parts = [self._decode_reporter.numbers if report is None else report.all_numbers]
        if ends:
            of_request = self.tables.count_live_tensor
            live = [of_request(request.slot, request.prompt_tokens, request.computed_tokens) for request in ends]
            parts.append(torch.stack(live))
        wait = copy_numbers(*parts)
        about = (len(self.tables.lens), self.tables.num_lists, self._step_reads is not None, self.method.counts_prompts)
        self._prune_rows(self.rows)
        self._scheduled_tokens = {}

        def read() -> dict[str, RequestReport]:
            numbers, *of_ends = wait()
            live = dict(zip([request.request for request in ends], of_ends[0].tolist(), strict=True)) if ends else {}
            return read_report(requests, live, report, numbers, *about)

        return read

    def _report_decodes(self, scheduled_tokens: Mapping[str, tuple[int, int]]) -> DecodeReports:
        """The report of a step of decode steps alone, whose numbers the last layer has gathered (`gather_report`)."""
        running = self._scheduled_requests()
        reports = DecodeReports(
            tuple(scheduled_tokens),
            tuple(generation for generation, _ in scheduled_tokens.values()),
            tuple(run.computed_tokens for run in running),
            self._decode_reporter.start_copy([run.slot for run in running], self._step_reads is not None),
        )
        self._prune_rows(self.rows)
        self._scheduled_tokens = {}
        return reports

    def gather_report(self, step: CudaStep) -> None:
        """Gather what a step is reported with, once the last layer is done; of decode steps part of their graph."""
        self._gather(step)

    def _gather(self, step: CudaStep | None) -> None:
        if step is None or step.report is None:
            self._decode_reporter.gather(self._step_reads)
        else:
            arguments = (step.report.gathered, step.first_blocks, self._launches)
            gather_step_report(self.tables, self._step_reads, *arguments)

    @property
    def _step_reads(self) -> Tensor | None:
        method = self.method
        return method.reads if isinstance(method, WorkerHosted) and method.selects else None


def _aligned(numbers: Tensor) -> Tensor:
    """The same numbers at a multiple of 16 bytes: Triton compiles another kernel for pointers elsewhere."""
    return numbers.clone() if numbers.data_ptr() % 16 else numbers
