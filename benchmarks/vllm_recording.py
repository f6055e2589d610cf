"""What vLLM records as CUDA graphs while an engine starts: sizes of steps with prompts, memory and seconds."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

_RUNNERS = ("vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu.model_runner")


def recorded_prompts(folder: Path | str, batch_size: int, step_tokens: int, tensor_parallel: int) -> dict[str, Any]:
    """Arguments of ``EngineArgs``: graphs of steps with prompts, of the sizes that `hyperscale run` has recorded.

    Args:
        folder: Of the model's configuration.
        batch_size: Most requests at once.
        step_tokens: Most tokens of a step.
        tensor_parallel: GPUs that share each layer.
    """
    from transformers import AutoConfig

    from hyperscale.engines.vllm.harness import engine_args
    from hyperscale.engines.vllm.harness.compilation import compilation_args

    config = AutoConfig.from_pretrained(folder)
    prompts = engine_args.recorded_prompts(config, "bfloat16", step_tokens, tensor_parallel)
    return compilation_args("full", batch_size, prompts)


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """What engines that start in the context record in this process.

    Yields:
        "graphs_gib", the memory that went meanwhile, and "graphs_s"; empty where nothing is recorded.
    """
    found: dict[str, float] = {}
    with ExitStack() as stack:
        for module in _RUNNERS:
            stack.enter_context(_watch(import_module(module).GPUModelRunner, found))
        yield found


@contextmanager
def _watch(runner: Any, found: dict[str, float]) -> Iterator[None]:
    original = runner.capture_model

    @wraps(original)
    def capture_model(self: Any) -> int:
        start = time.perf_counter()
        taken: int = original(self)
        found["graphs_s"] = found.get("graphs_s", 0.0) + time.perf_counter() - start
        found["graphs_gib"] = found.get("graphs_gib", 0.0) + taken / 2**30
        return taken

    runner.capture_model = capture_model
    try:
        yield
    finally:
        runner.capture_model = original


def told(engines: dict[str, dict[str, Any]]) -> str:
    """A line for the engines that recorded something; empty if none did."""
    parts = [
        f"{name} {found['graphs_gib']:.2f} GiB in {found['graphs_s']:.1f} s"
        for name, found in engines.items()
        if "graphs_gib" in found
    ]
    return "CUDA graphs: " + ", ".join(parts) if parts else ""
