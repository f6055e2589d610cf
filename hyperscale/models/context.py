"""Tells how many tokens a model's context holds, by its configuration."""

from collections.abc import Mapping
from typing import Any

_DEFAULTS = {
    "llama": 2048,
    "qwen2": 32768,
    "qwen3": 32768,
    "mistral": 131072,
    "gemma": 8192,
    "granite": 2048,
    "smollm3": 32768,
    "phi3": 4096,
}
"""What transformers takes where ``max_position_embeddings`` is missing."""


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of RoPE in a ``config.json``, under the names of transformers 5; empty if there are none.

    Older files have ``rope_scaling`` with ``type``; where both are there, transformers takes ``rope_scaling``.
    """
    for key in ("rope_scaling", "rope_parameters"):
        settings = config.get(key)
        if isinstance(settings, Mapping) and settings:
            kind = settings.get("rope_type", settings.get("type", "default"))
            return {**settings, "rope_type": kind}
    return {}


def context_limit(config: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and chain together, or None if the configuration does not say.

    It is ``max_position_embeddings``. RoPE that is scaled extends it: linear scaling by its factor; YaRN to its factor
    times the original context, as Qwen's instructions leave the latter in the file. In files with Llama 3's scaling it
    is the extended context already.
    """
    tokens = config.get("max_position_embeddings")
    if tokens is None:
        tokens = _DEFAULTS.get(str(config.get("model_type")))
    if not isinstance(tokens, int):
        return None
    rope = rope_settings(config)
    factor = rope.get("factor")
    if not isinstance(factor, int | float):
        return tokens
    if rope["rope_type"] == "linear":
        return int(tokens * factor)
    if rope["rope_type"] == "yarn":
        key = "original_max_position_embeddings"
        return max(tokens, int((config.get(key) or rope.get(key) or tokens) * factor))
    return tokens
