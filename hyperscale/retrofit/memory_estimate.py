"""Estimates the memory of a retrofit before any weights are loaded."""

import os
from dataclasses import dataclass
from typing import Any

from hyperscale.errors import RetrofitError
from hyperscale.retrofit.losses import LOSS_TOKENS

GIB = 2**30
#: What the machine is called whose CPU trains.
THIS_MACHINE = "this machine"
#: Share of a device's memory that may be planned for; the rest is the allocator's and the kernels'.
USABLE = 0.92
#: The same for activations that are kept only because they fit: their estimate rests on one model, and a training that
#: runs out of memory has lost more than they save.
USABLE_TO_KEEP = 0.7
#: Bytes a weight takes by the type of the student's weights: student, gradient, two float32 moments, the bfloat16
#: teacher. Mixed precision copies a layer's weights while that layer runs.
PER_WEIGHT = {"float32": 4 + 4 + 8 + 2, "bfloat16": 2 + 2 + 8 + 2}
#: Where the model's own weights do not train, they are there once, in bfloat16; the gates' are too few to count.
PER_FROZEN_WEIGHT = 2
#: Bytes that a weight of a low-rank update takes by their type: as above, without a teacher.
PER_UPDATE = {"float32": 4 + 4 + 8 + 2, "bfloat16": 2 + 2 + 8}
#: Bytes that one layer's backward pass takes for a token and each of its values (`_values_of_layer`), by whether the
#: project's own kernels attend and by the bytes of a number of the residual stream; those that are held of each layer
#: where all activations are kept, by the first alone; and float32 values for each logit of a part of the loss. They
#: follow from measured peaks, which tests/retrofit has. Without the project's kernels FlexAttention attends, which
#: makes queries and keys outside the window twice as wide. With them a bfloat16 stream is taken for what a float32 one
#: takes, a bound: in what was measured of it the logits took more than a layer.
LAYER_BYTES = {False: {4: 3.1, 2: 2.7}, True: {4: 2.4, 2: 2.4}}
KEPT_BYTES = {False: 0.9, True: 0.7}
LOGIT_VALUES = 5
#: Largest model, in weights, whose steps are recorded as CUDA graphs: those of larger ones keep the GPU busy.
LARGEST_RECORDED = 10**9


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step.

    Attributes:
        parameters: Number of weights.
        weights: Student, gradients, moments and teacher.
        activations: Inputs of layers or all that is kept of them, one layer's activations, and one part of the logits.
    """

    parameters: int
    weights: int
    activations: int

    def fits(self, memory: int, share: float = USABLE) -> bool:
        """Whether it may be planned for in a share of the memory of a device with so many bytes."""
        return self.weights + self.activations <= memory * share

    def __str__(self) -> str:
        return (
            f"{(self.weights + self.activations) / GIB:,.1f} GiB ({self.weights / GIB:,.1f} for weights and what "
            f"trains them, {self.activations / GIB:,.1f} for activations)"
        )


def count_parameters(config: Any) -> int:
    """Number of weights of a transformers configuration; nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def estimate_memory(
    parameters: int,
    weights: str,
    config: Any = None,
    rows: int = 0,
    length: int = 0,
    *,
    frozen: bool = False,
    rank: int = 0,
    gpus: int = 1,
    kept: bool = False,
    fused: bool = False,
    recorded: bool = False,
) -> MemoryEstimate:
    """Estimate from a number of weights, for a GPU; without a configuration the activations are left out.

    Args:
        parameters: Number of weights.
        weights: Type of the student's weights, a key of `PER_WEIGHT`.
        config: transformers configuration.
        rows: Rows of a batch.
        length: Tokens of a row.
        frozen: Whether the model's own weights stay as they are.
        rank: Of the low-rank updates that train; 0 if there are none.
        gpus: How many share the training; the estimate is of one of them.
        kept: Whether the activations of all layers are held for the backward pass, and not computed again.
        fused: Whether the project's own kernels attend, which hold less than FlexAttention.
        recorded: Whether steps are recorded as CUDA graphs where they can be.
    """
    held = parameters * (PER_FROZEN_WEIGHT if frozen else PER_WEIGHT[weights])
    if config is not None:
        held += rank * _update_width(config) * PER_UPDATE[weights]
    held //= gpus
    if config is None:
        return MemoryEstimate(parameters, held, 0)
    tokens, item = rows * length, 4 if weights == "float32" and not frozen else 2
    # What the backward pass needs of every layer: its input, as activations are computed again.
    inputs = config.num_hidden_layers * tokens * config.hidden_size * item
    layer = int(LAYER_BYTES[fused][item] * tokens * _values_of_layer(config))
    if kept:
        inputs = int(KEPT_BYTES[fused] * config.num_hidden_layers * tokens * _values_of_layer(config))
    # Of one part of the tokens, in float32: logits of both models and their gradients. They are gone when the last
    # layer's backward pass begins.
    logits = LOGIT_VALUES * min(tokens, LOSS_TOKENS) * config.vocab_size * 4
    # The peak of launched steps comes when there are few gradients yet. Recorded steps hold them all the time.
    if recorded and fused and gpus == 1 and not frozen and parameters <= LARGEST_RECORDED:
        held += 4 * parameters
    return MemoryEstimate(
        parameters, held, inputs + max(layer, logits) + (_gathered(parameters, config, item) * (gpus > 1))
    )


def head_dim_of(config: Any) -> int:
    """Numbers of one head's key, by a transformers configuration."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _values_of_layer(config: Any) -> int:
    """Values that one layer computes for a token: residual stream, projections and MLP, each with its gradient."""
    return int(24 * config.hidden_size + 8 * config.intermediate_size)


def _update_width(config: Any) -> int:
    """Weights of the low-rank updates of queries, keys, values and outputs, for each unit of their rank."""
    head_dim = head_dim_of(config)
    query, key = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    return int(config.num_hidden_layers * (2 * (config.hidden_size + query) + 2 * (config.hidden_size + key)))


def _gathered(parameters: int, config: Any, item: int) -> int:
    """Bytes of what one of several GPUs holds whole: embedding and output of student and teacher, and two layers.

    Of the student in its weights' type, of the teacher in bfloat16.
    """
    ends = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return int((ends + 2 * (parameters - ends) // config.num_hidden_layers) * (item + 2))


def device_memory(device: str) -> tuple[str, int]:
    """Name and bytes of a device's memory; the machine's for the CPU."""
    import torch

    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(torch.device(device))
        return properties.name, int(properties.total_memory)
    return THIS_MACHINE, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(
    estimate: MemoryEstimate,
    model: str,
    weights: str,
    device: tuple[str, int],
    *,
    is_kept: bool = False,
    gpus: int = 1,
) -> None:
    """Refuse what does not fit.

    Args:
        estimate: The estimate.
        model: Name for the message.
        weights: Type of the student's weights.
        device: Name and bytes, as `device_memory` gives them.
        is_kept: Whether it is with all activations kept.
        gpus: How many share the training; the estimate is of one of them.

    Raises:
        RetrofitError: It does not fit; the message says what would.
    """
    name, memory = device
    room = memory * USABLE
    if estimate.fits(memory):
        return
    least, frozen = (estimate.parameters * each // gpus for each in (PER_WEIGHT["bfloat16"], PER_FROZEN_WEIGHT))
    of_one = " of a GPU" if gpus > 1 else ""
    if estimate.weights <= room:
        advice = ("pass --activations recomputed, " if is_kept else "pass ") + "fewer --rows or a smaller --length"
        advice += "" if weights == "bfloat16" else ", or --weights bfloat16"
    elif weights != "bfloat16" and least <= room:
        advice = f"--weights bfloat16 takes {least / GIB:,.0f} GiB{of_one} and activations"
    elif frozen < estimate.weights and frozen <= room:
        advice = f"--recipe adapters takes {frozen / GIB:,.0f} GiB{of_one} and activations, --recipe lora a little more"
    else:
        advice = (
            f"even with --recipe adapters it takes {frozen / GIB:,.0f} GiB{of_one} and activations, so it needs a "
            "larger GPU, or more of them: --gpus shares it among several"
        )
    raise RetrofitError(
        f"retrofitting {model} takes about {estimate}, and {name} has {memory / GIB:,.0f} GiB: {advice}"
    )
