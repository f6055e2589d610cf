"""Wraps ``Scheduler.update_from_output`` of vLLM, so that costs are complete when a request ends.

vLLM frees finished requests before it hands the workers' report of the same step to the connector, so a request's last
step, and all of one that generates a single token, would be missing from its costs. The wrapper books the report first;
booking it again when vLLM gets there changes nothing. It also puts the costs of requests that asked to be followed on
each of their outputs, as a chain that a stop string ends is finished by the front end, not by the scheduler.
"""

from functools import wraps
from typing import Any

_MARK = "_hyperscale_wrapped"


def wrap_update_from_output() -> None:
    """Wrap the method; a second time changes nothing."""
    from vllm.v1.core.sched.scheduler import Scheduler

    from hyperscale.engines.vllm.scheduler.channel import SchedulerChannel
    from hyperscale.engines.vllm.step_messages import StepReport

    if getattr(Scheduler.update_from_output, _MARK, False):
        return
    original = Scheduler.update_from_output

    @wraps(original)
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        channel = getattr(self.connector, "channel", None)
        if not isinstance(channel, SchedulerChannel):  # stock vLLM, or another connector
            return original(self, scheduler_output, model_runner_output)
        output = model_runner_output.kv_connector_output
        if output is not None and isinstance(report := output.kv_connector_worker_meta, StepReport):
            channel.book_report(report)
        result = original(self, scheduler_output, model_runner_output)
        if not channel.follows:
            return result
        for client_outputs in result.values():
            for output in client_outputs.outputs:
                # A finished request is gone by now, and has its costs from `request_finished`.
                request = self.requests.get(output.request_id)
                if request is not None and output.kv_transfer_params is None:
                    output.kv_transfer_params = channel.costs_so_far(request)
        return result

    # vLLM registers plugins several times in a process; the mark keeps the method from being wrapped twice.
    setattr(update_from_output, _MARK, True)
    Scheduler.update_from_output = update_from_output
