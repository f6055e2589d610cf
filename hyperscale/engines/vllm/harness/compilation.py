"""Decides what vLLM prepares on a GPU before the first token: a short run need not wait for what a long one needs.

Recording CUDA graphs of decode steps takes seconds and saves the host's work in every step; compiling takes the better
part of a minute and makes a step a few per cent faster.
"""

from typing import Any, Literal, get_args

Compilation = Literal["none", "graphs", "full"]
"""Nothing: eager steps. CUDA graphs of decode steps. Compiled code and CUDA graphs."""

LEVELS: tuple[Compilation, ...] = get_args(Compilation)
_EAGER_LAYER_STEPS = 40_000  # a layer of an eager step takes half a millisecond longer, graphs and their process 20 s
_EAGER_LAYER_STEPS_INSIDE = 10_000  # in the process of the run graphs take 5 s
_MOST_RECORDED = 512  # requests or tokens of the largest step that vLLM records a graph of
_UNCOMPILED_STEPS = 100_000  # at 4 ms a step, of which compiled code saves a twentieth: 20 s


def choose_compilation(steps: int | None, layers: int, inside: bool = False) -> Compilation:
    """What is worth preparing.

    Args:
        steps: Decode steps that an engine is planned to make at most; None if that is not known.
        layers: Layers of the model.
        inside: Whether graphs are recorded in the process of the run (`engine_args.is_small`).
    """
    if steps is None or steps >= _UNCOMPILED_STEPS:
        return "full"
    fewest = _EAGER_LAYER_STEPS_INSIDE if inside else _EAGER_LAYER_STEPS
    return "none" if steps * layers < fewest else "graphs"


def compilation_args(level: Compilation, batch_size: int) -> dict[str, Any]:
    """Arguments of vLLM's ``EngineArgs`` on CUDA.

    Args:
        level: What is prepared.
        batch_size: Most requests at once.
    """
    if level == "full":
        # vLLM's own sizes up to twice the batch, and the batch: it records no decode step of more requests than there
        # can be, so that a full batch of another number than these would run without a graph.
        most = min(2 * batch_size, _MOST_RECORDED)
        usual = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most]
        if batch_size in usual or batch_size > most:
            return {}
        return {"compilation_config": {"cudagraph_capture_sizes": sorted([*usual, batch_size])}}
    if level == "none":
        return {"enforce_eager": True, "optimization_level": 0}
    # Each graph is recorded on its own: powers of two are few, and a batch is padded to the next one.
    sizes = [size for size in (1 << n for n in range(16)) if size < batch_size]
    graphs = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [*sizes, batch_size]}
    return {"optimization_level": 0, "compilation_config": graphs}


def describe_compilation(level: Compilation, steps: int | None) -> str:
    """The choice in a line of the plan."""
    planned = "" if steps is None else f" for at most {steps:,} steps"
    return {
        "none": f"vLLM records and compiles nothing{planned}",
        "graphs": f"vLLM records CUDA graphs and compiles nothing{planned}",
        "full": f"vLLM records CUDA graphs and compiles{planned}",
    }[level]
