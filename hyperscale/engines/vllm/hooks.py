"""The methods of vLLM's that are wrapped: ``Scheduler.update_from_output``; on CUDA ``determine_available_memory``.

vLLM frees finished requests before it hands the workers' report of the same step to the connector, so a request's last
step, and all of one that generates a single token, would be missing from its costs. The wrapper books the report first;
booking it again when vLLM gets there changes nothing. It also puts the costs of requests that asked to be followed on
each of their outputs, as a chain that a stop string ends is finished by the front end, not by the scheduler.

vLLM gives all memory that is left to the cache, and the tables of the lists need some: their share is taken off.
"""

import logging
from functools import wraps
from typing import Any

from hyperscale.errors import EngineError

_MARK = "_hyperscale_wrapped"


def install() -> None:
    """Wrap the method; a second time changes nothing."""
    from vllm.v1.core.sched.scheduler import Scheduler

    from hyperscale.engines.vllm.connector import RaggedConnector
    from hyperscale.engines.vllm.messages import Report

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


def reserve() -> None:
    """On CUDA, wrap ``determine_available_memory`` of the worker; a second time changes nothing."""
    from hyperscale.engines.vllm import backends

    if backends.device() != "cuda":
        return
    from vllm.v1.worker.gpu_worker import Worker

    if getattr(Worker.determine_available_memory, _MARK, False):
        return
    original = Worker.determine_available_memory

    @wraps(original)
    def determine_available_memory(self: Any) -> int:
        found = int(original(self))
        return found - share(self.vllm_config, next(iter(self.get_kv_cache_spec().values())), found)

    setattr(determine_available_memory, _MARK, True)
    Worker.determine_available_memory = determine_available_memory


def share(vllm_config: Any, spec: Any, memory: int) -> int:
    """Bytes that the tables take out of the memory for the cache; none if the user has set the cache's size.

    Args:
        vllm_config: vLLM's configuration.
        spec: The cache's spec; any but ours has no tables.
        memory: Bytes that vLLM has found.

    Raises:
        EngineError: The tables alone do not fit.
    """
    from hyperscale.engines.vllm.spec import RaggedSpec
    from hyperscale.engines.vllm.staging import StagedLists
    from hyperscale.engines.vllm.worker import tables

    if not isinstance(spec, RaggedSpec):
        return 0
    fixed, one = (tables(vllm_config, spec, StagedLists, blocks, "meta").nbytes for blocks in (0, 1))
    each = one - fixed
    chosen = bool(vllm_config.cache_config.kv_cache_memory_bytes)
    blocks = memory // spec.page_size_bytes if chosen else (memory - fixed) // (spec.page_size_bytes + each)
    taken = fixed + max(blocks, 0) * each
    slots, longest = vllm_config.scheduler_config.max_num_seqs, vllm_config.model_config.max_model_len
    told = f"the lists of {slots} requests of {longest} tokens take {taken / 2**30:.2f} GiB beside the cache"
    if not chosen and blocks < 1:
        raise EngineError(f"{told}, and {memory / 2**30:.2f} GiB are left: lower --max-num-seqs or --max-model-len")
    logging.getLogger("vllm.hyperscale").info("hyperscale: %s", told)
    return 0 if chosen else taken
