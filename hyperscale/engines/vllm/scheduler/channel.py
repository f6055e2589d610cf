"""The scheduler's end of the channel: instructions out, reports in, and the costs of each request."""

from typing import Any

from hyperscale.engines.vllm.cache_spec import RaggedSpec
from hyperscale.engines.vllm.protocol import DecodeReports, RequestParams
from hyperscale.engines.vllm.scheduler.continued_requests import continue_behind
from hyperscale.engines.vllm.scheduler.costs import CostRequest, RequestCosts
from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator
from hyperscale.engines.vllm.step_messages import StepInstructions, StepReport
from hyperscale.utils import counter_rng

_REPORTS_AT_ONCE = 16
"""Decode steps that are booked at once: less than a page's tokens, so that no request holds much in the meantime."""


class SchedulerChannel:
    """What the connector does in the scheduler's process.

    Attributes:
        costs: Request id to its costs, of all requests that vLLM has.
    """

    def __init__(self, spec: RaggedSpec, max_tokens: int) -> None:
        """Nothing has arrived.

        Args:
            spec: The cache's.
            max_tokens: Most tokens of a request, its prompt included.
        """
        self._spec, self._max_tokens = spec, max_tokens
        self.costs: dict[str, RequestCosts] = {}
        self._last_report: StepReport | None = None
        self._waiting_reports: list[StepReport] = []  # of decode steps, oldest first
        self._followed: set[str] = set()  # requests whose costs go with every output

    @property
    def _allocator(self) -> SuperblockAllocator:
        # Looked up late: vLLM makes the manager, which makes the allocator, after the connector.
        allocator: SuperblockAllocator = self._spec.allocator
        return allocator

    def add_request(self, request: Any) -> None:
        """A request of vLLM's has arrived."""
        cost_request, sampling = (
            CostRequest.read(request.kv_transfer_params, len(self._spec.all_arms)),
            request.sampling_params,
        )
        self._allocator.use_options(self._spec.all_arms[cost_request.arm])
        key = cost_request.noise_key
        if key is None:
            seed = sampling.seed if sampling else None
            key = counter_rng.key(seed if seed is not None else request.request_id)
        prompt_tokens = min(cost_request.prompt or request.num_prompt_tokens, request.num_prompt_tokens)
        own = request.num_prompt_tokens - prompt_tokens + int(request.max_tokens)
        cost_request = cost_request.with_length(own, max(self._max_tokens - prompt_tokens, own))
        assert cost_request.L is not None
        params = RequestParams(prompt_tokens, cost_request.L, key)
        if prompt_tokens < request.num_prompt_tokens:
            continue_behind(request, prompt_tokens, stepwise=self._spec.all_arms[cost_request.arm].hosted)
        self._allocator.add_request(request.request_id, params)
        self._allocator.catch_up = self.book_waiting_reports
        self.costs[request.request_id] = RequestCosts(params.prompt_tokens, self._spec.total_lists, cost_request)
        # Where a stop string ends a chain, vLLM's front end notices, not the scheduler: costs must be there already.
        if cost_request.follow or (sampling and sampling.stop):
            self._followed.add(request.request_id)

    def instruct_workers(self, scheduled_tokens: dict[str, int]) -> StepInstructions:
        """The message before a step that runs so many tokens of each request."""
        updates, released_requests = self._allocator.take_updates()
        # The generation travels with each step, so that its report can be told from one of an earlier admission.
        running = self._allocator.running
        generation_and_tokens = {
            request: (running[request].generation, tokens) for request, tokens in scheduled_tokens.items()
        }
        return StepInstructions(updates, released_requests, generation_and_tokens)

    def book_report(self, report: StepReport) -> None:
        """Book a step's report. A second time changes nothing, as positions and generations are known by number.

        Reports of decode steps wait for each other, as booking several at once costs little more than booking one:
        until somebody asks for costs, or needs a superblock, or there are `_REPORTS_AT_ONCE` of them.
        """
        if report is self._last_report:  # vLLM hands over each twice
            return
        self._last_report = report
        self._waiting_reports.append(report)
        if self._followed or not report.may_wait or len(self._waiting_reports) >= _REPORTS_AT_ONCE:
            self.book_waiting_reports()

    def book_waiting_reports(self) -> None:
        """Book all reports that have come."""
        reports, self._waiting_reports = self._waiting_reports, []
        steps: list[DecodeReports] = []  # of the same requests, one after another
        for report in reports:
            requests = report.requests
            if steps and not (isinstance(requests, DecodeReports) and steps[-1].precedes(requests)):
                self._book_decodes(steps)
                steps = []
            if isinstance(requests, DecodeReports):
                steps.append(requests)
                continue
            for request, usage in requests.items():
                if request in self.costs:  # else it has finished already
                    if usage.prompt_part is not None:
                        self.costs[request].record_prompt(*usage.prompt_part)
                    self.costs[request].record(usage.computed_tokens, usage.live_entries, usage.read_entries)
                self._allocator.record_usage(request, usage.generation, usage.pages, usage.computed_tokens)
        if steps:
            self._book_decodes(steps)

    def _book_decodes(self, steps: list[DecodeReports]) -> None:
        """Book consecutive decode steps of the same requests."""
        last, columns = steps[-1], [step.columns for step in steps]
        # By request, a number a step.
        live = zip(*(each.live_entries for each in columns), strict=True)
        read = zip(*(each.read_entries or each.live_entries for each in columns), strict=True)
        rows = zip(last.requests, last.generations, last.computed_tokens, columns[-1].pages, live, read, strict=True)
        for request, generation, computed_tokens, pages, live_entries, read_entries in rows:
            if request in self.costs:  # else it has finished already
                self.costs[request].record(computed_tokens, live_entries, read_entries)
            self._allocator.record_usage(request, generation, pages, computed_tokens)

    @property
    def follows(self) -> bool:
        """Whether any request's costs are to go with every output."""
        return bool(self._followed)

    def costs_so_far(self, request: Any) -> dict[str, Any] | None:
        """Costs of a running request's tokens so far, if they are to go with every output."""
        if request.request_id not in self._followed:
            return None
        costs = self.costs[request.request_id]
        return costs.summarize(_count_generated(request, costs))

    def finish_request(self, request: Any) -> dict[str, Any] | None:
        """A request is over: forget it; returns what it cost."""
        self.book_waiting_reports()
        self._allocator.remove_request(request.request_id)
        self._followed.discard(request.request_id)
        costs = self.costs.pop(request.request_id, None)
        return (costs.summarize(_count_generated(request, costs)) or None) if costs else None


def _count_generated(request: Any, costs: RequestCosts) -> int:
    """Tokens behind the prompt so far, those that the chain had from the start included."""
    return int(request.num_prompt_tokens - costs.prompt_tokens + request.num_output_tokens)
