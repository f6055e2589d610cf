"""Starts vLLM's engine, with the environment that it needs, and says why it does not start."""

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any
from weakref import WeakSet

from hyperscale.engines.vllm.families import FAMILIES, architecture
from hyperscale.engines.vllm.harness.process_end import end_waiting_with_process
from hyperscale.engines.vllm.plugin.parent_watch import END_WITH_PARENT
from hyperscale.errors import EngineError, HyperscaleError, first_line

_OWN_LOG_LEVEL = os.environ.get("VLLM_LOGGING_LEVEL")  # the user's; ours is set for each engine
_open_here: WeakSet[Any] = WeakSet()  # the engine whose core runs in this process; one that is dropped leaves


def start_engine(args: dict[str, Any], own_process: bool, cpu: bool, gpu: int | None = None) -> Any:
    """Start vLLM's engine; `stop_engine` stops it.

    Args:
        args: Of ``EngineArgs``.
        own_process: Whether its core runs in a process of its own.
        cpu: Whether it runs on the CPU.
        gpu: Which of the GPUs that this process sees, if it matters; only for an engine in a process of its own.

    Returns:
        vLLM's ``LLMEngine``.

    Raises:
        EngineError: It does not start, or one is open in this process.
    """
    # vLLM keeps its connector, its settings and its groups of ranks once a process: a second engine would run by the
    # first one's method, and end with it.
    if _open_here:
        gc.collect()  # one that nobody can close any more may wait for that
    if _open_here:
        raise EngineError(
            "this process has an engine of vLLM open, and a second one would run by its method: close the first one "
            "(engine.close()) before another starts"
        )
    if gpu and not own_process:
        raise EngineError(f"vLLM runs on cuda:{gpu} only in a process of its own")
    # Read by vLLM while it is imported or started. Binding threads to cores would bind the harness's too.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if own_process else "0"
    os.environ[END_WITH_PARENT] = "1"
    if not cpu:
        # A process that has asked torch whether there is a GPU cannot fork, and vLLM does not notice.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # What stops it is told in one line of ours. From a process of its own, the reason comes only through its log.
    if _OWN_LOG_LEVEL is None:
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR" if own_process else "CRITICAL"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # It compiles a sampler of its own, and then draws by another one, as each request has its own generator.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if cpu and "triton" not in sys.modules:
        # Useless on the CPU, and it ends the process with a hundred lines about its own leaks.
        sys.modules["triton"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    try:
        from vllm import EngineArgs, LLMEngine

        _register_classes()
        if not own_process:
            _forget_earlier()
        with _show_gpu(gpu), _have_descriptor():
            engine = LLMEngine.from_engine_args(EngineArgs(**args))
    except HyperscaleError:
        raise
    except Exception as error:
        reason = first_line(error.__cause__ or error)
        if "root cause above" in reason:
            reason = (
                "its process has printed why above; if it lacks memory, choose a smaller --gpu-memory where others use "
                "the GPU too, a larger one where the cache does not fit; if others gave memory back while it measured "
                'its own ("Error in memory profiling"), run the same command again'
            )
        raise EngineError(f"vLLM does not start: {reason}; --engine torch does without it") from error
    if own_process:
        end_waiting_with_process(engine.engine_core.output_queue_thread, engine.engine_core.outputs_queue)
    else:
        _open_here.add(engine)
    return engine


def stop_engine(engine: Any) -> None:
    """Stop vLLM's engine and give back its memory.

    Args:
        engine: What `start_engine` returned.
    """
    with suppress(Exception):
        engine.engine_core.shutdown()
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    _open_here.discard(engine)


def _register_classes() -> None:
    """Show vLLM the plugin's model classes themselves.

    Of those that it knows by name only, it asks a process that imports vLLM once more.
    """
    from vllm.model_executor.models import ModelRegistry
    from vllm.plugins import load_general_plugins

    from hyperscale.engines.vllm.model import models

    load_general_plugins()
    for family in FAMILIES:
        for name in (architecture(family), architecture(family, ragged=False)):
            ModelRegistry.register_model(name, getattr(models, name))


def _forget_earlier() -> None:
    """Let vLLM make a new pool of memory for CUDA graphs, and a new connector.

    An earlier engine's pool in this process has gone with it. The connector of one that did not start stays, and the
    next one would run by its method.
    """
    from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown
    from vllm.platforms import current_platform

    type(current_platform)._global_graph_pool = None
    ensure_kv_transfer_shutdown()


@contextmanager
def _have_descriptor() -> Iterator[None]:
    """Give the block an output with a file descriptor.

    vLLM 0.26 mutes the output's while it starts, and a notebook's or a test's may have none.
    """
    try:
        sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # None, one without a descriptor, a closed one
        with redirect_stdout(sys.__stdout__):
            yield
    else:
        yield


@contextmanager
def _show_gpu(gpu: int | None) -> Iterator[None]:
    """Let processes that start in the block see one GPU alone; vLLM takes the first that it sees.

    Args:
        gpu: Its index among those that this process sees; None to show them all.
    """
    if gpu is None:
        yield
        return
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    visible = before.split(",") if before else None
    os.environ[name] = visible[gpu].strip() if visible and gpu < len(visible) else str(gpu)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
