"""The channel between scheduler and workers: a KV connector that moves no cache, only the book's news and reports."""

from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)

from hyperscale.engines.vllm.plugin.messages import Grants, Report
from hyperscale.engines.vllm.protocol import Demand
from hyperscale.engines.vllm.scheduler.costs import Asked, Reads
from hyperscale.utils import counter_rng

if TYPE_CHECKING:
    from hyperscale.engines.vllm.scheduler.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.slots import Slots


class RaggedConnector(KVConnectorBase_V1, SupportsHMA):
    """One of these lives in the scheduler and one in each worker.

    A request may carry ``kv_transfer_params`` of its own: ``checkpoints``, numbers of tokens at which its costs are
    wanted; ``key``, the noise key of the rule that draws; ``follow``, to have its costs with every token, not only with
    the last. Requests with stop strings are followed anyway, as it is vLLM's front end that ends them. The costs are
    the response's ``kv_transfer_params``; what made no sense is named in their ``ignored``.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._config = vllm_config
        self.spec: RaggedSpec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
        self.worker: Slots | None = None
        self.reads: dict[str, Reads] = {}
        self._follow: set[str] = set()

    @property
    def requires_kv_delivery(self) -> bool:
        """A preempted request's output in flight is good: its tokens were drawn from a complete cache."""
        return False

    # -- in the scheduler -------------------------------------------------------------------------------------------

    def on_new_request(self, request: Any) -> None:
        """A request has arrived."""
        asked, params = Asked.read(request.kv_transfer_params), request.sampling_params
        seed = params.seed if params else None
        key = counter_rng.key(seed if seed is not None else request.request_id) if asked.key is None else asked.key
        demand = Demand(request.num_prompt_tokens, int(request.max_tokens), key)
        self.spec.book.announce(request.request_id, demand)
        self.reads[request.request_id] = Reads(demand.prompt, self.spec.rows, asked)
        if asked.follow or (params and params.stop):
            self._follow.add(request.request_id)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """No tokens come from elsewhere."""
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Nothing: the book knows."""

    def build_connector_meta(self, scheduler_output: Any) -> Grants:
        """The book's news, and which requests this step runs."""
        grants, gone = self.spec.book.grants()
        held = self.spec.book.held
        scheduled = {
            request: (held[request].generation, tokens)
            for request, tokens in scheduler_output.num_scheduled_tokens.items()
        }
        return Grants(grants, gone, scheduled)

    def ingest(self, report: Report) -> None:
        """Book a step's report; a second time changes nothing."""
        for request, ran in report.ran.items():
            if request in self.reads:
                self.reads[request].count(ran.covered, ran.lives)
            self.spec.book.report(request, ran.generation, ran.pages, ran.covered)

    def update_connector_output(self, connector_output: Any) -> None:
        """See `ingest`, which has seen it already."""
        if isinstance(report := connector_output.kv_connector_worker_meta, Report):
            self.ingest(report)

    def followed(self, request: str, tokens: int) -> dict[str, Any] | None:
        """Costs of a running request, if it asked to have them with every token."""
        return self.reads[request].costs(tokens) if request in self._follow else None

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """A request is over: what it cost, and vLLM frees its superblocks."""
        self.spec.book.forget(request.request_id)
        self._follow.discard(request.request_id)
        reads = self.reads.pop(request.request_id, None)
        return False, (reads.costs(request.num_output_tokens) or None) if reads else None

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """See `request_finished`."""
        return self.request_finished(request, block_ids)

    # -- in a worker ------------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """The cache tensor exists: set up the lists in it."""
        from hyperscale.engines.vllm.backends.select import backend
        from hyperscale.engines.vllm.worker.slots import Slots

        self.worker = Slots.current = backend().worker(self._config, self.spec, next(iter(kv_caches.values())))

    def shutdown(self) -> None:
        """The engine ends: let go of the cache and the lists."""
        from hyperscale.engines.vllm.worker.slots import Slots

        if self.worker is not None:
            self.worker = Slots.current = None

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """A step begins."""
        super().bind_connector_metadata(connector_metadata)
        if self.worker is not None and isinstance(connector_metadata, Grants):
            self.worker.begin(connector_metadata.grants, connector_metadata.gone, connector_metadata.scheduled)

    def build_connector_worker_meta(self) -> Report | None:
        """A step has ended."""
        return Report(self.worker.report()) if self.worker is not None else None

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Nothing is loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is loaded."""

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is saved."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""
