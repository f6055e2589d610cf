"""Refuses models whose attention asks for something that an engine's attention function does not compute.

transformers hands everything that is special about a model's attention to the attention function as a keyword argument
(soft-capping, sliding windows, sinks). To ignore one of them would give other tokens without a word.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from hyperscale.errors import ModelError

_WITHOUT_EFFECT = {"cache_position", "output_attentions", "output_hidden_states", "position_ids", "use_cache"}
"""Arguments that describe the forward pass: positions are in the rotated queries and keys, engines keep the cache."""
_COMPUTED: dict[str, Any] = {"dropout": 0.0, "is_causal": True}
"""Arguments with the only value that is computed."""


def check_attention_arguments(module: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that change what a model's attention computes; None asks for nothing.

    Args:
        module: The attention module that calls the attention function.
        arguments: Keyword arguments that the engine does not handle itself.

    Raises:
        ModelError: One of them is neither known nor None.
    """
    for name, value in arguments.items():
        if value is None or name in _WITHOUT_EFFECT or (name in _COMPUTED and value == _COMPUTED[name]):
            continue
        family = getattr(getattr(module, "config", None), "model_type", type(module).__name__)
        raise ModelError(
            f"models of type {family!r} do not run here: their attention uses {name!r}, which the engine does not "
            "compute"
        )
