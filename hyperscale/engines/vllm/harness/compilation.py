"""Decides what vLLM prepares on a GPU before the first token: a short run need not wait for what a long one needs.

Recording CUDA graphs of decode steps takes seconds and saves the host's work in every step; compiling takes the better
part of a minute and makes a step a few per cent faster.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

Compilation = Literal["none", "graphs", "full"]
"""Nothing: eager steps. CUDA graphs of decode steps. Compiled code and CUDA graphs."""

LEVELS: tuple[Compilation, ...] = get_args(Compilation)
_EAGER_LAYER_STEPS = 40_000  # a layer of an eager step takes half a millisecond longer, graphs and their process 20 s
_EAGER_LAYER_STEPS_INSIDE = 10_000  # in the process of the run graphs take 5 s
_MOST_RECORDED = 512  # requests or tokens of the largest step that vLLM by itself records a graph of
_UNCOMPILED_STEPS = 100_000  # at 4 ms a step, of which compiled code saves a twentieth: 20 s
# Weights of a layer times tokens of a step: an H200 works on that for 0.9 ms, longer than a slow host takes to launch
# the layer's operations.
_LAUNCH_BOUND = 270_000_000_000


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


def prompt_sizes(layer_weights: int, step_tokens: int) -> list[int]:
    """Tokens of steps with prompts in them that are worth graphs of what lies between the attention layers.

    In such a step a host launches each operation of each layer, which for few tokens of a small model takes longer than
    the GPU works on them. A step is padded to the next size: from 64 tokens on by a quarter at most, from 512 on by an
    eighth.

    Args:
        layer_weights: Weights of a layer's matrices on a GPU.
        step_tokens: Most tokens of a step.
    """
    sizes = [*range(64, 128, 16), *range(128, 256, 32), *range(256, 512, 64), *range(512, 1024, 64)]
    sizes += [*range(1024, 2048, 128), *range(2048, step_tokens + 1, 256)]
    return [size for size in sizes if size <= min(step_tokens, _LAUNCH_BOUND // layer_weights)]


def compilation_args(level: Compilation, batch_size: int, prompts: Sequence[int] = ()) -> dict[str, Any]:
    """Arguments of vLLM's ``EngineArgs`` on CUDA.

    Args:
        level: What is prepared.
        batch_size: Most requests at once.
        prompts: Tokens of steps with prompts in them that are recorded where code is compiled (`prompt_sizes`): vLLM
            then records what lies between the attention layers.
    """
    if level == "full":
        # vLLM's own sizes up to twice the batch, and the batch: it records no decode step of more requests than there
        # can be, so that a full batch of another number than these would run without a graph.
        most = min(2 * batch_size, _MOST_RECORDED)
        usual = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most]
        recorded = {*usual, *(size for size in prompts if size > most)}
        if batch_size <= max(recorded):
            recorded.add(batch_size)
        return {} if recorded == {*usual} else {"compilation_config": {"cudagraph_capture_sizes": sorted(recorded)}}
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
