"""Model families that tests hold against transformers' own, and those that have classes in vLLM.

The torch engine runs others too, by what their classes need (`hyperscale.engines.families.needs`). What a checkpoint
may ask for is not a matter of its family's name: `hyperscale.engines.config_check` refuses windows, soft-capping and
the like by their keys.
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
"""Values of ``model_type``, with the beginning of their classes' names. These are not tried when they are loaded."""


def explain_absent(family: object, engine: str) -> str | None:
    """Why an engine with classes of its own does not run a family, in words for the user; None if it does.

    Args:
        family: The value of ``model_type``.
        engine: What the user calls the engine, or the command.
    """
    if family in IN_EVERY_ENGINE:
        return None
    return f"models of type {family!r} do not run in {engine}, which has {', '.join(IN_EVERY_ENGINE)}"
