"""Starting vLLM, and what its failures mean."""

import os
import sys
import threading
import warnings
from contextlib import suppress
from queue import Queue
from typing import Any

from hyperscale.engines.vllm.plugin.parent_watch import _TOGETHER
from hyperscale.errors import EngineError, HyperscaleError, first_line


class Checkpoint:
    """A checkpoint's configurations, as `end_ids` looks for them."""

    def __init__(self, path: str) -> None:
        from transformers import AutoConfig, GenerationConfig

        self.config = AutoConfig.from_pretrained(path)
        with suppress(OSError):
            self.generation_config = GenerationConfig.from_pretrained(path)


def start(args: dict[str, Any], own_process: bool, cpu: bool) -> Any:
    """Start vLLM's engine.

    Raises:
        EngineError: It does not start.
    """
    # Read by vLLM while it is imported or started. Binding threads to cores would bind the harness's too.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if own_process else "0"
    os.environ[_TOGETHER] = "1"
    if not cpu:
        # Whoever has asked torch whether there is a GPU cannot fork, and vLLM does not notice.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # What stops it comes as one line of ours; but from a process of its own the reason comes in no other way.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR" if own_process else "CRITICAL")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if cpu and "triton" not in sys.modules:
        # Useless on the CPU, and it ends the process with a hundred lines about its own leaks.
        sys.modules["triton"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    try:
        from vllm import EngineArgs, LLMEngine

        engine = LLMEngine.from_engine_args(EngineArgs(**args))
    except HyperscaleError:
        raise
    except Exception as error:
        reason = first_line(error.__cause__ or error)
        if "root cause above" in reason:
            reason = (
                "its process has printed why above; if it lacks memory, choose a smaller --gpu-memory where others use "
                "the GPU too, a larger one where the cache does not fit"
            )
        raise EngineError(f"vLLM does not start: {reason}") from error
    if own_process:
        _tell_of_the_end(engine.engine_core.output_queue_thread, engine.engine_core.outputs_queue)
    return engine


def _tell_of_the_end(receiver: threading.Thread, outputs: Queue[Any]) -> None:
    """Have whoever waits for an output learn that none will come.

    When vLLM's process is killed, its client stops receiving and puts nothing in the queue: `step` would wait forever.
    """

    def tell() -> None:
        receiver.join()
        outputs.put(RuntimeError("its process ended"))

    threading.Thread(target=tell, name="hyperscale-vllm-end", daemon=True).start()


def stopped(error: Exception) -> EngineError:
    """What is told of an error that vLLM ended with while it ran."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    if type(error).__name__ == "EngineDeadError":
        reason = "its process ended; what it printed above says why, else it was killed, as for want of memory"
    advice = "run the same command again"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        advice += " with a smaller --batch-size"
    return EngineError(f"vLLM stopped ({reason}): finished chains are kept; {advice}")
