"""Connects scheduler and workers through vLLM's KV connector, which here moves no cache: only messages.

vLLM makes one connector in the scheduler and one in each worker, of the same class. Either half does nothing but pass
on: to `SchedulerChannel` in the scheduler, to `CacheWorker` in a worker.
"""

from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)

from hyperscale.engines.vllm.scheduler.channel import SchedulerChannel
from hyperscale.engines.vllm.step_messages import StepInstructions, StepReport

if TYPE_CHECKING:
    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.cache_worker import CacheWorker


class RaggedConnector(KVConnectorBase_V1, SupportsHMA):
    """One of these lives in the scheduler and one in each worker.

    A request may carry ``kv_transfer_params`` of its own: ``cuts``, numbers of tokens at which its costs are
    wanted; ``key``, the noise key for methods that draw; ``arm``, the number of the method that it is for, of an
    engine that runs several in turn; ``follow``, to have its costs with every token, not only with the last; ``steps``,
    to have those of each token; ``prompt`` and ``L``, of one that goes on with a chain.
    Requests with stop strings are followed anyway, as it is vLLM's front end that ends them. The costs are the
    response's ``kv_transfer_params``; what made no sense is named in their ``ignored``.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._config = vllm_config
        self._spec: RaggedSpec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
        max_tokens = vllm_config.model_config.max_model_len
        self.channel = SchedulerChannel(self._spec, max_tokens) if role == KVConnectorRole.SCHEDULER else None
        self.worker: CacheWorker | None = None

    @property
    def requires_kv_delivery(self) -> bool:
        """A preempted request's output in flight is good: its tokens were drawn from a complete cache."""
        return False

    # -- in the scheduler -------------------------------------------------------------------------------------------

    def on_new_request(self, request: Any) -> None:
        """A request has arrived."""
        self._scheduler_channel.add_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """No tokens come from elsewhere."""
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Nothing: the allocator knows."""

    def build_connector_meta(self, scheduler_output: Any) -> StepInstructions:
        """The message to the workers before a step."""
        return self._scheduler_channel.instruct_workers(scheduler_output.num_scheduled_tokens)

    def update_connector_output(self, connector_output: Any) -> None:
        """A step's report, which `hyperscale.engines.vllm.scheduler.output_hook` has booked already."""
        if isinstance(report := connector_output.kv_connector_worker_meta, StepReport):
            self._scheduler_channel.book_report(report)

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """A request is over: False, as vLLM may free its superblocks at once, and what the request cost."""
        return False, self._scheduler_channel.finish_request(request)

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """See `request_finished`."""
        return self.request_finished(request, block_ids)

    @property
    def _scheduler_channel(self) -> SchedulerChannel:
        assert self.channel is not None, "the worker's connector was asked what the scheduler's does"
        return self.channel

    # -- in a worker ------------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """The cache tensor exists: set up the tables beside it."""
        from hyperscale.engines.vllm.backends.select import backend_class
        from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

        cache = next(iter(kv_caches.values()))  # the one tensor that all layers share
        self.worker = CacheWorker.current = backend_class().create_worker(self._config, self._spec, cache)

    def use_arm(self, arm: int) -> None:
        """Run by the method of this number from now on; see `hyperscale.engines.vllm.plugin.arm_switch`."""
        from hyperscale.engines.vllm.worker.methods.registry import create_for_worker

        worker, options = self.worker, self._spec.all_arms[arm]
        assert worker is not None, "the cache is set up before the first arm runs"
        worker.change_method(lambda: create_for_worker(worker.tables, self._spec, self._config, options))

    def shutdown(self) -> None:
        """The engine ends: let go of the cache and the tables."""
        from hyperscale.engines.vllm.worker.cache_worker import CacheWorker

        if self.worker is not None:
            self.worker = CacheWorker.current = None

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """A step begins."""
        super().bind_connector_metadata(connector_metadata)
        if self.worker is not None and isinstance(connector_metadata, StepInstructions):
            message = connector_metadata
            self.worker.begin_step(message.updates, message.released_requests, message.scheduled_tokens)

    def build_connector_worker_meta(self) -> StepReport | None:
        """A step has ended."""
        return StepReport(self.worker.report_step()) if self.worker is not None else None

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Nothing is loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is loaded."""

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is saved."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""
