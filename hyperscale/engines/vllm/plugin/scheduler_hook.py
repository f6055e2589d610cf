"""The methods of vLLM's that are wrapped: ``Scheduler.update_from_output``; on CUDA ``determine_available_memory``.

vLLM frees finished requests before it hands the workers' report of the same step to the connector, so a request's last
step, and all of one that generates a single token, would be missing from its costs. The wrapper books the report first;
booking it again when vLLM gets there changes nothing. It also puts the costs of requests that asked to be followed on
each of their outputs, as a chain that a stop string ends is finished by the front end, not by the scheduler.

vLLM gives all memory that is left to the cache, and the tables of the lists need some: their share is taken off.
"""

from functools import wraps
from typing import Any

_MARK = "_hyperscale_wrapped"


def install() -> None:
    """Wrap the method; a second time changes nothing."""
    from vllm.v1.core.sched.scheduler import Scheduler

    from hyperscale.engines.vllm.plugin.connector import RaggedConnector
    from hyperscale.engines.vllm.plugin.messages import Report

    if getattr(Scheduler.update_from_output, _MARK, False):
        return
    original = Scheduler.update_from_output

    @wraps(original)
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        connector = self.connector
        if not isinstance(connector, RaggedConnector):
            return original(self, scheduler_output, model_runner_output)
        output = model_runner_output.kv_connector_output
        if output is not None and isinstance(report := output.kv_connector_worker_meta, Report):
            connector.ingest(report)
        result = original(self, scheduler_output, model_runner_output)
        for group in result.values():
            for each in group.outputs:
                request = self.requests.get(each.request_id)
                if request is not None and each.kv_transfer_params is None:
                    each.kv_transfer_params = connector.followed(each.request_id, request.num_output_tokens)
        return result

    setattr(update_from_output, _MARK, True)
    Scheduler.update_from_output = update_from_output
