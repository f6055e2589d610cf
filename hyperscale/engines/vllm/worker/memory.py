"""Takes the memory of the worker's tables out of what vLLM gives to the cache, and measures that on a shared GPU."""

import gc
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from hyperscale.errors import EngineError

_MARK = "_hyperscale_reserves"
#: What vLLM's assertion says if more of the GPU is free after its trial run than before it loaded the model.
DISTURBED = "Error in memory profiling"
#: How often memory is measured before that assertion is let through.
_ATTEMPTS = 3


def wrap_available_memory() -> None:
    """On CUDA, wrap ``determine_available_memory`` of vLLM's worker; a second time changes nothing.

    vLLM gives all memory that is left to the cache, and the tables need some of it.
    """
    from hyperscale.engines.vllm import devices

    if devices.current_device() != "cuda":
        return
    from vllm.v1.worker.gpu_worker import Worker

    if getattr(Worker.determine_available_memory, _MARK, False):
        return
    original = Worker.determine_available_memory

    @wraps(original)
    def determine_available_memory(self: Any) -> int:
        # All layers share one cache, so the first spec is the only one.
        memory = measure_undisturbed(original, self)  # after vLLM's trial run of the model
        return memory - table_bytes(self.vllm_config, next(iter(self.get_kv_cache_spec().values())), memory)

    setattr(determine_available_memory, _MARK, True)
    Worker.determine_available_memory = determine_available_memory


def measure_undisturbed(measure: Callable[[Any], int], worker: Any) -> int:
    """Bytes for the cache by vLLM's own measurement, made again where other processes gave memory back during it.

    vLLM compares with what was free before it loaded the model. For another attempt that is worked out anew: what is
    free now and what torch holds, the weights. What this process took beside torch meanwhile, some hundred MiB of
    workspaces, is then counted as others'.

    Args:
        measure: ``Worker.determine_available_memory``.
        worker: vLLM's worker.

    Raises:
        AssertionError: vLLM's own, after so many attempts or for another reason.
    """
    attempt = 1
    while True:
        try:
            return int(measure(worker))
        except AssertionError as error:
            if DISTURBED not in str(error) or attempt == _ATTEMPTS:
                raise
        logging.getLogger("vllm.hyperscale").info("others gave GPU memory back while vLLM measured its own: once more")
        _take_snapshot_again(worker.init_snapshot)
        attempt += 1


def _take_snapshot_again(snapshot: Any) -> None:
    """Bring vLLM's ``MemorySnapshot`` up to date, as if torch held nothing yet."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    snapshot.measure()
    snapshot.free_memory += snapshot.torch_memory
    snapshot.cuda_memory -= snapshot.torch_memory
    snapshot.torch_memory = 0


def table_bytes(vllm_config: Any, spec: Any, memory: int) -> int:
    """Bytes that the tables and a method's state take out of the memory for the cache; of arms, the largest state.

    None if the user has set the cache's size.

    Args:
        vllm_config: vLLM's configuration.
        spec: The cache's spec; any but ours has no tables.
        memory: Bytes that vLLM has left for the cache.

    Raises:
        EngineError: The tables alone do not fit.
    """
    from hyperscale.engines.vllm.cache_spec import RaggedSpec
    from hyperscale.engines.vllm.worker.methods.registry import most_bytes
    from hyperscale.engines.vllm.worker.staged_tables import StagedTables

    if not isinstance(spec, RaggedSpec):
        return 0
    # Some tables grow with the slots, others with the superblocks, of which there are fewer the larger the tables are:
    # on the device "meta", which takes no memory, the sizes for none and for one superblock give both parts.
    slot_bytes, with_one_block = (
        StagedTables.for_engine(vllm_config, spec, blocks, "meta").nbytes for blocks in (0, 1)
    )
    block_bytes = with_one_block - slot_bytes
    slot_bytes += most_bytes(spec, vllm_config)
    user_set = bool(vllm_config.cache_config.kv_cache_memory_bytes)
    if user_set:
        blocks = memory // spec.page_size_bytes
    else:
        blocks = (memory - slot_bytes) // (spec.page_size_bytes + block_bytes)
    total = slot_bytes + max(blocks, 0) * block_bytes
    slots, max_tokens = vllm_config.scheduler_config.max_num_seqs, vllm_config.model_config.max_model_len
    message = f"the tables of {slots} requests of {max_tokens} tokens take {total / 2**30:.2f} GiB beside the cache"
    if not user_set and blocks < 1:
        raise EngineError(f"{message}, and {memory / 2**30:.2f} GiB are left: lower --max-num-seqs or --max-model-len")
    logging.getLogger("vllm.hyperscale").info("hyperscale: %s", message)
    return 0 if user_set else total
