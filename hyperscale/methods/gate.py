"""The learned eviction gate of DMS: its configuration, its tensors and its logit.

Source: DMS, arXiv 2506.05345, section 3, in the variant with a separate projection; tensor and configuration names are
those of the published checkpoints (``self_attn.dms_proj_alpha``, ``self_attn.dms_proj_alpha_norm``, ``dms_*``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hyperscale.errors import ModelError


@dataclass(frozen=True)
class GateConfig:
    """Settings of the gate, as kept in a checkpoint's ``config.json``.

    Attributes:
        window: w, the number of younger keys after which a verdict takes effect: key k is visible to query q while
            q - k <= w; a flagged key is gone from q = k + w + 1 on.
        alpha_scale: Factor on the projection's output.
        initial_offset: Subtracted from the scaled output, so that an untrained gate evicts nothing.
        tau: Temperature of the Gumbel-sigmoid in training.
        cr: Nominal compression ratio the checkpoint was trained to.
    """

    window: int = 256
    alpha_scale: float = 100.0
    initial_offset: float = 5.0
    tau: float = 0.1
    cr: float = 1.0

    @classmethod
    def from_hf(cls, config: Any) -> "GateConfig":
        """Read the ``dms_*`` keys of a transformers configuration.

        Raises:
            ModelError: The configuration has no DMS keys, or asks for a variant that is not supported.
        """
        if getattr(config, "dms_window_size", None) is None:
            raise ModelError("the checkpoint has no dms_* keys in config.json: it was not retrofitted with DMS")
        if not getattr(config, "dms_separate_alpha", True) or getattr(config, "dms_alpha_per", "head") != "head":
            raise ModelError(
                "only DMS checkpoints with a separate projection per KV head are supported "
                "(dms_separate_alpha=true, dms_alpha_per='head')"
            )
        return cls(
            window=int(config.dms_window_size),
            alpha_scale=float(getattr(config, "dms_alpha_scale", cls.alpha_scale)),
            initial_offset=float(getattr(config, "dms_initial_alpha_offset", cls.initial_offset)),
            tau=float(getattr(config, "dms_tau", cls.tau)),
            cr=float(getattr(config, "dms_cr", cls.cr)),
        )

    def to_hf(self) -> dict[str, Any]:
        """The ``dms_*`` keys to write into a checkpoint's configuration."""
        return {
            "dms_window_size": self.window,
            "dms_alpha_scale": self.alpha_scale,
            "dms_initial_alpha_offset": self.initial_offset,
            "dms_tau": self.tau,
            "dms_cr": self.cr,
            "dms_separate_alpha": True,
            "dms_alpha_per": "head",
        }


def attach_gates(model: Any) -> list[nn.Module]:
    """Add zero-initialised gate tensors to every attention layer of a transformers causal LM.

    The projection maps ``RMSNorm(hidden before the layer's input norm)`` to one logit per KV head.

    Returns:
        The attention modules, one per layer, each with ``dms_proj_alpha`` and ``dms_proj_alpha_norm``.
    """
    config = model.config
    modules = [layer.self_attn for layer in model.model.layers]
    weight = next(model.parameters())
    for module in modules:
        bias = bool(getattr(config, "attention_bias", False))
        module.dms_proj_alpha = nn.Linear(config.hidden_size, config.num_key_value_heads, bias=bias)
        nn.init.zeros_(module.dms_proj_alpha.weight)
        if bias:
            nn.init.zeros_(module.dms_proj_alpha.bias)
        module.dms_proj_alpha_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        module.dms_proj_alpha.to(weight.device, weight.dtype)
        module.dms_proj_alpha_norm.to(weight.device, weight.dtype)
    return modules


def alpha_logits(attention: nn.Module, hidden: Tensor, config: GateConfig) -> Tensor:
    """Eviction logits computed from one layer's incoming hidden states.

    The logit computed from hidden state i + 1 is the verdict on the key of token i: evict iff it is above 0.

    Args:
        attention: An attention module with gates attached.
        hidden: (batch, sequence, hidden), before the layer's input norm.
        config: The gate's settings.

    Returns:
        (batch, sequence, kv_heads), float32.
    """
    projected = attention.dms_proj_alpha(attention.dms_proj_alpha_norm(hidden))  # type: ignore[operator]
    logits: Tensor = projected.to(torch.float32) * config.alpha_scale - config.initial_offset
    return logits
