"""The learned eviction gate of DMS: its tensors, its logit, and what attention sees of a borrowed neuron.

Source: DMS, arXiv 2506.05345, section 3, and NVIDIA Model-Optimizer, experimental/dms. The logit comes from a
projection of the layer's input, or from a neuron borrowed from attention: the last dimension of the first query head of
each group, before RoPE (after the query's norm, where there is one), which attention then sees as 0: before RoPE and
after it, or before it alone (`hyperscale.methods.core.dms_config`, which reads what a checkpoint asks for). (The paper
says "one dimension"; that it is the last is the code's choice.) Tensor names are those of the published checkpoints
(``self_attn.dms_proj_alpha``, ``self_attn.dms_proj_alpha_norm``).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hyperscale.methods.core.dms_config import GateConfig as GateConfig
from hyperscale.methods.core.rotary import Projected, scale_neurons


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

    The logit computed from hidden state i + d, d being ``config.decision_offset``, is the verdict on the key of token
    i: evict iff it is above 0.

    Args:
        attention: An attention module with gates attached.
        hidden: (batch, sequence, hidden), before the layer's input norm.
        config: The gate's settings.

    Returns:
        (batch, sequence, kv_heads), float32.
    """
    return gate_logits(attention.dms_proj_alpha(attention.dms_proj_alpha_norm(hidden)), config)  # type: ignore[operator]


def borrowed_logits(queries: Tensor, kv_heads: int, config: GateConfig) -> Tensor:
    """Eviction logits of borrowed neurons, as `alpha_logits`.

    Args:
        queries: (batch, query_heads, sequence, head_dim), before RoPE.
        kv_heads: Number of KV heads.
        config: The gate's settings.
    """
    # Query heads that share a KV head are neighbours: the first of each group lends its last dimension.
    return gate_logits(queries[:, :: queries.shape[1] // kv_heads, :, -1].transpose(1, 2), config)


def gate_logits(raw: Tensor, config: GateConfig) -> Tensor:
    """Logits (batch, tokens, kv_heads) from the projection's output or the neuron, of the same shape."""
    if config.disabled:  # such a checkpoint runs with a full cache
        return torch.full(raw.shape, -math.inf, dtype=torch.float32, device=raw.device)
    logits = raw.to(torch.float32) * config.alpha_scale - config.initial_offset
    # One verdict a layer is that of its first KV head.
    return logits[..., :1].expand_as(logits) if config.per == "layer" else logits


def rotate_borrowed(
    projected: Projected, config: GateConfig, visible: Tensor | float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values after RoPE, without the borrowed neurons.

    Args:
        projected: The same before RoPE.
        config: The gate's settings.
        visible: The part of the neurons that attention still sees: 0, or more while a retrofit fades them out.
    """
    group = projected.queries.shape[1] // projected.keys.shape[1]
    queries = projected.queries
    if config.zeroing != "never":
        queries = scale_neurons(queries, visible, group)
    queries = projected.rope(queries)
    if config.zeroing == "before_and_after_rope":  # RoPE turns part of the neuron's partner into its place
        queries = scale_neurons(queries, visible, group)
    return queries, projected.rope(projected.keys), projected.values
