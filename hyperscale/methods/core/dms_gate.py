"""The learned eviction gate of DMS: its configuration, its tensors and its logit.

Source: DMS, arXiv 2506.05345, section 3, and NVIDIA Model-Optimizer, experimental/dms. The logit comes from a
projection of the layer's input, or from a neuron borrowed from attention: the last dimension of the first query head of
each group, before RoPE (after the query's norm, where there is one), which attention then sees as 0, before RoPE and
after it. (The paper says "one dimension"; that it is the last is the code's choice.) Tensor and configuration names are
those of the published checkpoints (``self_attn.dms_proj_alpha``, ``self_attn.dms_proj_alpha_norm``, ``dms_*``).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hyperscale.errors import ModelError
from hyperscale.methods.core.rotary import Projected, scale_neurons


@dataclass(frozen=True)
class GateConfig:
    """Settings of the gate, as kept in a checkpoint's ``config.json``.

    Attributes:
        window: w, the number of younger keys after which a verdict takes effect: key k is visible to query q while
            q - k <= w; a flagged key is gone from q = k + w + 1 on.
        alpha_scale: Factor on the projection's output, or on the neuron.
        initial_offset: Subtracted from the scaled output, so that an untrained gate evicts nothing.
        tau: Temperature of the Gumbel-sigmoid in training.
        cr: Nominal compression ratio the checkpoint was trained to.
        separate: Whether the gate has a projection of its own; otherwise it borrows a neuron.
        per: Whether each KV head has its own verdict, or all of a layer share that of its first ("layer").
    """

    window: int = 256
    alpha_scale: float = 100.0
    initial_offset: float = 5.0
    tau: float = 0.1
    cr: float = 1.0
    separate: bool = True
    per: Literal["head", "layer"] = "head"

    @classmethod
    def from_hf(cls, config: Any) -> "GateConfig":
        """Read the ``dms_*`` keys of a transformers configuration.

        Raises:
            ModelError: The configuration has no DMS keys, or one that makes no sense.
        """
        if getattr(config, "dms_window_size", None) is None:
            raise ModelError("the checkpoint has no dms_* keys in config.json: it was not retrofitted with DMS")
        per = getattr(config, "dms_alpha_per", cls.per)
        if per not in ("head", "layer"):
            raise ModelError(f"dms_alpha_per in config.json is {per!r}; it must be 'head' or 'layer'")
        return cls(
            window=int(config.dms_window_size),
            alpha_scale=float(getattr(config, "dms_alpha_scale", cls.alpha_scale)),
            initial_offset=float(getattr(config, "dms_initial_alpha_offset", cls.initial_offset)),
            tau=float(getattr(config, "dms_tau", cls.tau)),
            cr=float(getattr(config, "dms_cr", cls.cr)),
            separate=bool(getattr(config, "dms_separate_alpha", cls.separate)),
            per=per,
        )

    def to_hf(self) -> dict[str, Any]:
        """The ``dms_*`` keys to write into a checkpoint's configuration."""
        return {
            "dms_window_size": self.window,
            "dms_alpha_scale": self.alpha_scale,
            "dms_initial_alpha_offset": self.initial_offset,
            "dms_tau": self.tau,
            "dms_cr": self.cr,
            "dms_separate_alpha": self.separate,
            "dms_alpha_per": self.per,
        }


def attach_gates(model: Any, *, separate: bool = True) -> list[nn.Module]:
    """Add zero-initialised gate tensors to every attention layer of a transformers causal LM.

    The projection maps ``RMSNorm(hidden before the layer's input norm)`` to one logit per KV head. Gates that borrow a
    neuron have no tensors.

    Returns:
        The attention modules, one per layer, each with ``dms_proj_alpha`` and ``dms_proj_alpha_norm`` if separate.
    """
    config = model.config
    modules = [layer.self_attn for layer in model.model.layers]
    weight = next(model.parameters())  # new tensors get its type and device
    # Zeros make every logit 0 - initial_offset, which evicts nothing.
    for module in modules if separate else ():
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
    """Eviction logits of a separate projection, computed from one layer's incoming hidden states.

    The logit computed from hidden state i + 1 is the verdict on the key of token i: evict iff it is above 0.

    Args:
        attention: An attention module with gates attached.
        hidden: (batch, sequence, hidden), before the layer's input norm.
        config: The gate's settings.

    Returns:
        (batch, sequence, kv_heads), float32.
    """
    return _logits(attention.dms_proj_alpha(attention.dms_proj_alpha_norm(hidden)), config)  # type: ignore[operator]


def borrowed_logits(queries: Tensor, kv_heads: int, config: GateConfig) -> Tensor:
    """Eviction logits of borrowed neurons, as `alpha_logits`.

    Args:
        queries: (batch, query_heads, sequence, head_dim), before RoPE.
        kv_heads: Number of KV heads.
        config: The gate's settings.
    """
    # Query heads that share a KV head are neighbours: the first of each group lends its last dimension.
    return _logits(queries[:, :: queries.shape[1] // kv_heads, :, -1].transpose(1, 2), config)


def _logits(raw: Tensor, config: GateConfig) -> Tensor:
    """Logits (batch, tokens, kv_heads) from the projection's output or the neuron, of the same shape."""
    logits = raw.to(torch.float32) * config.alpha_scale - config.initial_offset
    # One verdict a layer is that of its first KV head.
    return logits[..., :1].expand_as(logits) if config.per == "layer" else logits


def rotate_borrowed(projected: Projected, visible: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values after RoPE, without the borrowed neurons.

    Args:
        projected: The same before RoPE.
        visible: The part of the neurons that attention still sees: 0, or more while a retrofit fades them out.
    """
    group = projected.queries.shape[1] // projected.keys.shape[1]
    # RoPE turns part of the neuron's partner into its place, hence the second time.
    queries = scale_neurons(projected.rope(scale_neurons(projected.queries, visible, group)), visible, group)
    return queries, projected.rope(projected.keys), projected.values
