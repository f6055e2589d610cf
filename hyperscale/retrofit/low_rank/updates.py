"""Attaches low-rank updates to a model in training and switches them off where the same weights teach."""

from importlib.util import find_spec
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from hyperscale.errors import RetrofitError

#: Which linear layers get an update.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
INSTALL = "pip install 'hyperscale-kv[lora]'"
#: Name that peft keeps them by.
_NAME = "default"


def is_installed() -> bool:
    """Whether peft is there."""
    return find_spec("peft") is not None


def require_peft() -> None:
    """Refuse to begin without peft.

    Raises:
        RetrofitError: It is not installed.
    """
    if not is_installed():
        raise RetrofitError(f"--train lora needs peft, which is not installed: {INSTALL}, or pass --recipe adapters")


class LowRankUpdates:
    """The updates of a model: each projection W becomes ``W + alpha / rank · B A``, with B zero at the start.

    Args:
        model: A transformers causal LM; its projections are wrapped in place.
        rank: Rows of A (rank, in) and columns of B (out, rank).
        alpha: Scale of an update, of which ``alpha / rank`` is taken.

    Raises:
        RetrofitError: peft is not installed.
    """

    def __init__(self, model: Any, rank: int, alpha: float) -> None:
        require_peft()
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(PROJECTIONS), lora_dropout=0.0, bias="none")
        inject_adapter_in_model(config, model, _NAME)
        self._layers = [layer for _, layer in find_updated(model)]
        for name, parameter in model.named_parameters():
            if is_update(name) and not parameter.is_meta:
                parameter.data.copy_(start_values(name, parameter.shape))

    def parameters(self) -> list[nn.Parameter]:
        """A and B of each projection."""
        return [side[_NAME].weight for layer in self._layers for side in (layer.lora_A, layer.lora_B)]

    def switch(self, on: bool) -> None:
        """Let the projections run with their updates, or without."""
        for layer in self._layers:
            # peft's own `enable_adapters` sets requires_grad as well, on every parameter and twice a pass.
            layer._disable_adapters = not on


def is_update(name: str) -> bool:
    """Whether a parameter of this name is A or B of an update."""
    return ".lora_" in name


def start_values(name: str, shape: tuple[int, ...]) -> Tensor:
    """What A or B starts from: a function of its name, so that all processes that share a training have the same.

    Args:
        name: The parameter's in the model.
        shape: Its whole shape: (rank, in) or (out, rank).

    Returns:
        Zeros for B; for A, uniform numbers within ``1 / sqrt(in)``, as peft draws them.
    """
    if ".lora_B." in name:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    drawn: Tensor = (2 * torch.rand(shape, generator=generator) - 1) / shape[-1] ** 0.5
    return drawn


def find_updated(model: Any) -> list[tuple[str, Any]]:
    """Names and modules of the projections that have an update; empty if nothing was attached."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]


def read_scale(layer: Any) -> tuple[int, float]:
    """Rank and alpha of a projection's update."""
    return layer.r[_NAME], layer.lora_alpha[_NAME]
