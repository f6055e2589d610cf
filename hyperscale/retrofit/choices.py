"""Chooses what a command leaves open: the recipe, the length of rows, what is held of a forward pass."""

from collections.abc import Callable
from typing import Any, Literal

from hyperscale.errors import ModelError, RetrofitError
from hyperscale.methods.core.dms_config import has_gates
from hyperscale.models.context import context_limit
from hyperscale.retrofit import memory_estimate
from hyperscale.retrofit.recipes import NAMES, name_recipe
from hyperscale.retrofit.reporting.records import Activations
from hyperscale.retrofit.settings import RetrofitSettings, check_shares

#: Longest row unless one is set, in tokens.
DEFAULT_LENGTH = 8192
#: Rows on CUDA are a multiple of this, the block of FlexAttention's kernels.
CUDA_BLOCK = 128


def read_config(base: str) -> Any:
    """The transformers configuration of a model that can be retrofitted.

    Args:
        base: A folder or a hub id.

    Raises:
        ModelError: It is of a family that cannot be, a DMS or DMC checkpoint already, or of a layout without groups.
    """
    from hyperscale.engines.config_check import load_supported_config
    from hyperscale.engines.families.names import explain_absent

    config = load_supported_config(base)
    if reason := explain_absent(config.model_type, "hyperscale retrofit"):
        raise ModelError(f"{reason}: pass a model of one of these")
    for is_one, kind in ((has_gates(config), "DMS"), (getattr(config, "dmc_cr", None) is not None, "DMC")):
        if is_one:
            raise ModelError(f"{base} is a {kind} checkpoint already: pass the original model")
    if config.num_attention_heads % config.num_key_value_heads:
        raise ModelError(
            f"{base} has {config.num_attention_heads} query heads, no multiple of its {config.num_key_value_heads} KV "
            "heads: no group of them can lend a neuron or share a gate; mend its config.json, or pass another model"
        )
    return config


def choose_length(settings: RetrofitSettings, config: Any, device: str) -> int:
    """Tokens of a row: long enough that something is evicted, and no longer than the model's context.

    Raises:
        RetrofitError: ``--length`` is not that, or on CUDA no multiple of `CUDA_BLOCK`.
    """
    context = context_limit(config.to_dict()) or DEFAULT_LENGTH
    length = settings.length or min(DEFAULT_LENGTH, context)
    # The decision on a token comes from the next one and takes effect after the window: nothing is evicted below w + 3.
    if not settings.window + 2 < length <= context:
        raise RetrofitError(
            f"--length {length} does not lie between the window and the model's context: "
            f"{settings.window + 3} to {context}"
        )
    if device.startswith("cuda") and length % CUDA_BLOCK:
        raise RetrofitError(f"--length {length} is no multiple of {CUDA_BLOCK}, the block of the GPU's attention")
    return length


def list_candidates(settings: RetrofitSettings) -> tuple[str, ...]:
    """Names of the recipes to choose from, the best first; what is to train, if given, is what tells them apart."""
    if settings.recipe_name is not None:
        return (settings.recipe_name,)
    return (name_recipe(settings.train),) if "train" in settings.model_fields_set else NAMES


def choose_recipe(
    settings: RetrofitSettings,
    parameters: int,
    config: Any,
    length: int,
    memory: int,
    report: Callable[[str], None],
    *,
    fused: bool = False,
) -> RetrofitSettings:
    """The settings with the first recipe that fits; with the first that goes with them if none does.

    Args:
        settings: What is asked for, without a recipe.
        parameters: Of the model.
        config: Of the model.
        length: Tokens of a row.
        memory: Bytes of the device.
        report: Called with a line for a recipe that would fit and lacks a package, or with ``--weights bfloat16``.
        fused: Whether training attends with the project's own kernels.
    """
    from hyperscale.retrofit.low_rank.updates import INSTALL, is_installed

    names = list_candidates(settings)
    # A better recipe is worth more than activations that are kept, unless they are asked for.
    kept = settings.activations == "kept"
    first = None
    for name in names:
        try:
            chosen = settings.with_recipe(name)
            if settings.gpus > 1:
                check_shares(settings.gpus, chosen.recipe(parameters))
        except RetrofitError:  # it contradicts a setting that was given
            continue
        first = first or chosen
        if not estimate_settings(chosen, parameters, config, length, kept=kept, fused=fused).fits(memory):
            # Not chosen by itself: what training so costs a pretrained model was measured in short trainings alone.
            smaller = chosen.model_copy(update={"weights": "bfloat16"})
            if (
                not chosen.is_frozen
                and chosen.weights != "bfloat16"
                and estimate_settings(smaller, parameters, config, length, kept=kept, fused=fused).fits(memory)
            ):
                report(f"recipe {name} would fit with --weights bfloat16")
            continue
        if chosen.update_rank and "train" not in settings.model_fields_set and not is_installed():
            report(f"recipe {name} would fit, but needs peft: {INSTALL}")
            continue
        return chosen
    return first or settings.with_recipe(names[0])


def choose_activations(
    asked: Literal["auto", "recomputed", "kept"], before: Activations | None, device: str, *, fits: bool
) -> tuple[Activations, str]:
    """What is held of a forward pass for the backward pass, and why; what the user asked for goes without a reason.

    Args:
        asked: The setting.
        before: What the training that goes on began with; None if it is a new one.
        device: Where it trains.
        fits: Whether all activations fit its memory.
    """
    if asked != "auto":
        return asked, ""
    if before is not None:
        return before, "as this training began"
    if not device.startswith("cuda"):  # memory that has been measured is a GPU's
        return "recomputed", ""
    return ("kept", "as they fit") if fits else ("recomputed", "as all of them do not fit")


def estimate_settings(
    settings: RetrofitSettings, parameters: int, config: Any, length: int, *, kept: bool = False, fused: bool
) -> memory_estimate.MemoryEstimate:
    """The memory that a training takes, by its settings.

    Args:
        settings: With their recipe.
        parameters: Of the model.
        config: Of the model.
        length: Tokens of a row.
        kept: Whether all activations of a forward pass are held.
        fused: Whether training attends with the project's own kernels.
    """
    return memory_estimate.estimate_memory(
        parameters,
        settings.weights,
        config,
        settings.rows,
        length,
        frozen=settings.is_frozen,
        rank=settings.update_rank,
        gpus=settings.gpus,
        kept=kept,
        fused=fused,
        recorded=settings.cuda_graphs,
    )


def attends_fused_on(config: Any, device: str) -> bool:
    """Whether training on this device attends with the project's own kernels."""
    import torch

    from hyperscale.retrofit.attention.packed_attention import attends_fused

    return attends_fused(memory_estimate.head_dim_of(config), torch.device(device))
