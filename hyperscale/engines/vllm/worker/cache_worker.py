"""Base of the workers of all devices: keeps which request is in which slot, and reports each step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hyperscale.engines.vllm.protocol import RequestReport, SuperblockUpdate
from hyperscale.engines.vllm.worker.methods.base import WorkerMethod
from hyperscale.engines.vllm.worker.methods.hosted import WorkerHosted
from hyperscale.engines.vllm.worker.rows import Rows
from hyperscale.engines.vllm.worker.tables import EntryTables


@dataclass
class RunningRequest:
    """A request that has a slot.

    Attributes:
        slot: Its slot.
        generation: See `SuperblockUpdate`.
        prompt_tokens: P.
        computed_tokens: Its tokens once the step that has begun is done.
    """

    slot: int
    generation: int
    prompt_tokens: int
    computed_tokens: int = 0


class CacheWorker(ABC):
    """One worker's cache: its tables, and the requests in their slots.

    In every step the connector calls `begin_step` before the model runs and `report_step` after it; in between the
    attention layers take the worker from `CacheWorker.current`.

    Attributes:
        current: The worker of this process: attention layers have no other way to it.
        tables: The tables.
        method: The method.
        requests: The running requests by id.
    """

    current: "CacheWorker | None" = None

    def __init__(self, tables: EntryTables, method: WorkerMethod) -> None:
        self.tables, self.method = tables, method
        self.requests: dict[str, RunningRequest] = {}
        self._scheduled_tokens: dict[str, tuple[int, int]] = {}
        self._only_decodes = False  # whether every request of the step has one token, none of its prompt

    def begin_step(
        self,
        updates: Sequence[SuperblockUpdate],
        released_requests: Sequence[str],
        scheduled_tokens: Mapping[str, tuple[int, int]],
    ) -> None:
        """Bring slots and superblocks up to date.

        Args:
            updates: See `SuperblockAllocator.take_updates`.
            released_requests: Likewise.
            scheduled_tokens: Request to (generation, tokens of the step).
        """
        # Releases first: an update may need the slot, and a preempted request may be in both.
        for request in released_requests:
            if running := self.requests.pop(request, None):
                self._close(running)
        for update in updates:
            running = self.requests.get(update.request)
            if running is None or running.generation != update.generation:
                if running is not None:
                    self._close(running)
                params = update.params.prompt_tokens, update.params.L, update.params.noise_key
                slot = self.tables.open_slot(update.new_blocks[0], params)
                self.method.open_request(slot, *params)
                running = RunningRequest(slot, update.generation, params[0])
                self.requests[update.request] = running
            self.tables.set_superblocks(running.slot, update.num_kept, update.new_blocks)
        self.method.flush()
        # The host counts along, so that nothing has to be asked of the device.
        self._only_decodes = True
        for request, (_, tokens) in scheduled_tokens.items():
            running = self.requests[request]
            running.computed_tokens += tokens
            if tokens != 1 or running.computed_tokens <= running.prompt_tokens:
                self._only_decodes = False
        self._scheduled_tokens = dict(scheduled_tokens)

    def change_method(self, make: Callable[[], WorkerMethod]) -> None:
        """Run by another method from now on, when no request is left but those whose end is still to be told.

        Args:
            make: Makes the method; called when the tables of the former one have been given back.
        """
        for running in self.requests.values():
            self._close(running)
        self.requests.clear()
        self._forget_method()
        self._take_method(make())

    def _forget_method(self) -> None:
        del self.method

    def _take_method(self, method: WorkerMethod) -> None:
        self.method = method

    def _close(self, running: RunningRequest) -> None:
        self.method.close_request(running.slot)
        self.tables.close_slot(running.slot)

    def _finish_prompts(self, rows: Rows) -> None:
        """Let a hosted method evict from the prompts that end with this step, before the step is reported."""
        if isinstance(self.method, WorkerHosted):
            scheduled = [(self.requests[request], tokens) for request, (_, tokens) in self._scheduled_tokens.items()]
            alone = [
                (run.slot, run.computed_tokens)
                for run, tokens in scheduled
                if tokens == 1 and run.computed_tokens <= run.prompt_tokens
            ]
            if alone:
                self.method.weigh_alone(alone, rows)
            ended = [(run.slot, tokens == 1) for run, tokens in scheduled if run.computed_tokens == run.prompt_tokens]
            if ended:
                self.method.finish_prompts(ended, rows)

    def _prune_rows(self, rows: Rows) -> None:
        """Let a hosted method prune rows that are full, once the step's report has been read."""
        if isinstance(self.method, WorkerHosted):
            decoded = [run for run in self._scheduled_requests() if run.computed_tokens > run.prompt_tokens]
            for running in decoded:
                self.method.count_step(running.slot, running.computed_tokens)
            self.method.prune_full_rows({running.slot: running.computed_tokens for running in decoded}, rows)

    def _scheduled_requests(self) -> list[RunningRequest]:
        return [self.requests[request] for request in self._scheduled_tokens]

    @abstractmethod
    def report_step(self) -> Mapping[str, RequestReport] | Callable[[], Mapping[str, RequestReport]]:
        """What each request used in the step; or a function that waits for the device and then returns it."""
