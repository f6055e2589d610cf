"""Plans a retrofit by each recipe before anything is loaded: memory, GPUs, steps, tokens, and hours on them.

Time is floating-point work over the part of a GPU's peak that a training reached; it is a forecast to within a factor
of about two where GPU or size of the model are others than the measured ones. Several GPUs are taken to be as many
times as fast: what they say to one another is left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from hyperscale.errors import RetrofitError
from hyperscale.planning.roofline import Gpu
from hyperscale.retrofit.choices import choose_length, list_candidates, read_config
from hyperscale.retrofit.memory_estimate import (
    THIS_MACHINE,
    MemoryEstimate,
    count_parameters,
    estimate_memory,
    head_dim_of,
)
from hyperscale.retrofit.settings import MOST_GPUS, Recipe, RetrofitSettings, check_shares

#: Part of the bfloat16 peak that a step reached by the count of `step_flops`: the shape of a 1.5 B model on an H200,
#: rows of 8,192 tokens, 22,200 tokens/s by the recipe paper (0.43) and 28,300 by adapters (0.46).
REACHED = 0.43


@dataclass(frozen=True)
class RetrofitPlan:
    """What a retrofit by one recipe takes.

    Attributes:
        recipe: Its name.
        memory: Of a GPU at the peak of a step, with as many as were asked for; None if the recipe contradicts a
            setting.
        fits: Whether the GPU has so much.
        gpus: Least number of such GPUs, of those asked for and more, whose memory it fits; None if none does.
        steps: Optimiser steps.
        tokens: Tokens that they see, padding included.
        hours: Time of the steps on so many; None where it fits none, or the GPU's speed is not known.
        fits_in_bfloat16: Whether what trains would fit as bfloat16, where it does not as float32.
        refused: Why the recipe does not go with the settings; empty if it does.
    """

    recipe: str
    memory: MemoryEstimate | None
    fits: bool = False
    gpus: int | None = None
    steps: int = 0
    tokens: int = 0
    hours: float | None = None
    fits_in_bfloat16: bool = False
    refused: str = ""


def plan_retrofit(settings: RetrofitSettings, base: str, gpu: Gpu) -> list[RetrofitPlan]:
    """Plans by the recipes that the command would choose from.

    Args:
        settings: As the user gave them.
        base: Folder or hub id of the model to start from; its configuration is read, no weights.
        gpu: GPU to plan for, or the machine whose CPU trains (`THIS_MACHINE`).

    Raises:
        HyperscaleError: The model is of an unsupported kind, or the rows do not fit its context and the window.
    """
    config = read_config(base)
    length = choose_length(settings, config, "cpu" if gpu.name == THIS_MACHINE else "cuda")
    parameters = count_parameters(config)
    return [_plan_recipe(settings, name, config, parameters, length, gpu) for name in list_candidates(settings)]


def first_fitting(plans: Sequence[RetrofitPlan]) -> RetrofitPlan | None:
    """The plan that is taken where no recipe is named; None if none fits."""
    return next((plan for plan in plans if plan.fits), None)


def step_flops(config: Any, parameters: int, length: int, *, frozen: bool) -> float:
    """Floating-point operations of a training for each token, teacher included.

    Args:
        config: transformers configuration.
        parameters: Number of weights.
        length: Tokens of a row, one document.
        frozen: Whether the model's own weights stay as they are and need no gradient.
    """
    # Multiply and add, for each weight: teacher, student, student again for the backward pass, the gradient of its
    # input, and that of the weight.
    weights = 2 * parameters * (4 if frozen else 5)
    # Scores and sums of values over half the row on average: teacher 1, student 1, again 1, backward 2.5.
    attention = 5.5 * config.num_hidden_layers * config.num_attention_heads * head_dim_of(config) * 2 * length
    return float(weights + attention)


def _plan_recipe(
    settings: RetrofitSettings, name: str, config: Any, parameters: int, length: int, gpu: Gpu
) -> RetrofitPlan:
    try:
        chosen = settings.with_recipe(name)
        recipe = chosen.recipe(parameters)
        check_shares(chosen.gpus, recipe)
    except RetrofitError as error:
        return RetrofitPlan(name, None, refused=str(error))

    fused = _attends_fused(head_dim_of(config), gpu)

    def estimate(gpus: int, weights: Literal["float32", "bfloat16"] = chosen.weights) -> MemoryEstimate:
        return estimate_memory(
            parameters,
            weights,
            config,
            chosen.rows,
            length,
            frozen=chosen.is_frozen,
            rank=chosen.update_rank,
            gpus=gpus,
            # Where the choice is left to the training, it keeps them only if memory is left.
            kept=chosen.activations == "kept",
            fused=fused,
            recorded=chosen.cuda_graphs,
        )

    room = int(gpu.memory)
    memory = estimate(chosen.gpus)
    gpus = next((count for count in _shared_counts(chosen.gpus, recipe) if estimate(count).fits(room)), None)
    tokens = recipe.total_steps * chosen.rows * chosen.accumulate * length
    peak = dict(gpu.flops).get("bfloat16")
    hours = None
    if peak is not None and gpus is not None:
        flops = tokens * step_flops(config, parameters, length, frozen=chosen.is_frozen)
        hours = flops / (peak * REACHED * gpus) / 3600
    fits = memory.fits(room)
    in_bfloat16 = not fits and estimate(chosen.gpus, "bfloat16").fits(room)
    return RetrofitPlan(name, memory, fits, gpus, recipe.total_steps, tokens, hours, in_bfloat16)


def _attends_fused(head_dim: int, gpu: Gpu) -> bool:
    """Whether training on this GPU attends with the project's own kernels; on one that is not known, they run."""
    from hyperscale.retrofit.attention.fused import SHARED_MEMORY, fits_kernels
    from hyperscale.retrofit.attention.packed_attention import FUSED

    return FUSED and fits_kernels(head_dim, SHARED_MEMORY if gpu.shared_memory is None else gpu.shared_memory)


def _shared_counts(least: int, recipe: Recipe) -> Iterator[int]:
    """Numbers of GPUs, ascending, that can share a training."""
    for count in range(least, min(recipe.accumulate, MOST_GPUS) + 1):
        with suppress(RetrofitError):
            check_shares(count, recipe)
            yield count
