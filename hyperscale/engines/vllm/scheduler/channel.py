"""The scheduler's end of the channel: instructions out, reports in, and the costs of each request."""

from typing import Any

from hyperscale.engines.vllm.cache_spec import RaggedSpec
from hyperscale.engines.vllm.protocol import RequestParams
from hyperscale.engines.vllm.scheduler.costs import CostRequest, RequestCosts
from hyperscale.engines.vllm.scheduler.superblocks import SuperblockAllocator
from hyperscale.engines.vllm.step_messages import StepInstructions, StepReport
from hyperscale.utils import counter_rng


class SchedulerChannel:
    """What the connector does in the scheduler's process.

    Attributes:
        costs: Request id to its costs, of all requests that vLLM has.
    """

    def __init__(self, spec: RaggedSpec) -> None:
        self._spec = spec
        self.costs: dict[str, RequestCosts] = {}
        self._last_report: StepReport | None = None
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
        params = RequestParams(request.num_prompt_tokens, int(request.max_tokens), key)
        self._allocator.add_request(request.request_id, params)
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
        """Book a step's report. A second time changes nothing, as positions and generations are known by number."""
        if report is self._last_report:  # vLLM hands over each twice
            return
        self._last_report = report
        for request, usage in report.requests.items():
            if request in self.costs:  # else it has finished already
                self.costs[request].record(usage.computed_tokens, usage.live_entries, usage.read_entries)
            self._allocator.record_usage(request, usage.generation, usage.pages, usage.computed_tokens)

    def costs_so_far(self, request: str, tokens: int) -> dict[str, Any] | None:
        """Costs of a running request's first ``tokens`` tokens, if they are to go with every output."""
        return self.costs[request].summarize(tokens) if request in self._followed else None

    def finish_request(self, request: Any) -> dict[str, Any] | None:
        """A request is over: forget it; returns what it cost."""
        self._allocator.remove_request(request.request_id)
        self._followed.discard(request.request_id)
        costs = self.costs.pop(request.request_id, None)
        return (costs.summarize(request.num_output_tokens) or None) if costs else None
