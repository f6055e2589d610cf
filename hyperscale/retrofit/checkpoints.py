"""Reading the model a retrofit starts from, and writing the one it ends with."""

from pathlib import Path
from typing import Any


def save(model: Any, folder: Path, **extra: Any) -> None:
    """Write configuration and bfloat16 weights; the model's own weights keep their type, rounded to bfloat16.

    Only parameters are cast. ``model.to(bfloat16)`` would round the rotary frequencies as well, which are no part of
    the checkpoint and stay rounded: whatever is trained afterwards would not see the positions that inference sees.

    Args:
        model: A transformers causal LM, gates attached or not.
        folder: Where to.
        extra: Keys that join the configuration.
    """
    import torch

    for key, value in extra.items():
        setattr(model.config, key, value)
    was = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in was:
        parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(folder)
    for parameter, dtype in was:
        parameter.data = parameter.data.to(dtype)
