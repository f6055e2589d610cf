"""The part of vLLM's cache memory that the plugin's tables take."""

import logging
from functools import wraps
from typing import Any

from hyperscale.errors import EngineError

_MARK = "_hyperscale_reserves"


def reserve() -> None:
    """On CUDA, wrap ``determine_available_memory`` of the worker; a second time changes nothing."""
    from hyperscale.engines.vllm import devices

    if devices.device() != "cuda":
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
    from hyperscale.engines.vllm.scheduler.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.slots import tables
    from hyperscale.engines.vllm.worker.staged_tables import StagedLists

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
