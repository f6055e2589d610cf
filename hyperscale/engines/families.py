"""Model families that the engines run.

A family is here if a test holds its tokens and logits against transformers' own. What its checkpoints may ask for is
not a matter of its name: `hyperscale.engines.config_check` refuses windows, soft-capping and the like by their keys.
"""

IN_EVERY_ENGINE = ("qwen2", "qwen3", "llama")
"""Families that run in vLLM and with presses too, and that `hyperscale retrofit` trains."""
FAMILIES = {
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "llama": "Llama",
    "mistral": "Mistral",
    "gemma": "Gemma",
    "granite": "Granite",
    "smollm3": "SmolLM3",
    "phi3": "Phi3",
}
"""Values of ``model_type``, with the beginning of their classes' names. The torch engine runs all of them."""


def explain_absent(family: object, engine: str) -> str | None:
    """Why an engine does not run a family that the torch engine does, in words for the user; None if it does.

    Args:
        family: The value of ``model_type``.
        engine: What the user calls the other engine, or the command.
    """
    if family not in FAMILIES or family in IN_EVERY_ENGINE:
        return None
    return f"models of type {family!r} do not run in {engine}, which has {', '.join(IN_EVERY_ENGINE)}"
