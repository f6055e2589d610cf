"""Computes attention over packed documents, with or without the mask of delayed eviction, for training.

The mask of DMS adds ``log(1 - alpha_k)`` to the score of every key k older than the window w, and nothing to younger
ones (arXiv 2506.05345, section 3.2)::

    score(q, k) = q·k / sqrt(d) + [q - k > w] log(1 - alpha_k)      for k <= q of the same document

It is never materialised on CUDA, where it is computed in one of two ways, as the masks were made for:

- the project's own kernels (`hyperscale.retrofit.attention.fused`) add the bias as they go;
- two FlexAttention calls attend to keys inside and outside the window, the bias riding along as one more dimension of
  query and key, and the two results are merged by their log-sum-exp.

On the CPU the same function is computed densely; it is the reference.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from hyperscale.engines.attention_arguments import check_attention_arguments
from hyperscale.retrofit.attention.fused import fits_kernels, fused_attention, shared_memory
from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.gates.inline_gates import InlineGates

#: Name under which the function is registered with transformers.
NAME = "hyperscale_packed"
#: Whether training on CUDA attends with the project's own kernels where it can, or with FlexAttention, which
#: benchmarks/retrofit_attention.py times them against.
FUSED = True


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _flex(*args: Any, **kwargs: Any) -> Any:
    """FlexAttention, compiled here unless the caller is being compiled as a whole."""
    if torch.compiler.is_compiling():
        return flex_attention(*args, **kwargs)
    return _compiled_flex()(*args, **kwargs)


def _dense(q: Tensor, k: Tensor, v: Tensor, masks: PackingMasks, key_bias: Tensor | None, scale: float) -> Tensor:
    """The definition, with a mask of (batch, heads, queries, keys)."""
    group = q.shape[1] // k.shape[1]  # query heads of a KV head
    index = torch.arange(q.shape[2], device=q.device)
    age = index[:, None] - index[None, :]  # (queries, keys)
    visible = (masks.document[:, :, None] == masks.document[:, None, :]) & (age >= 0)
    mask = torch.zeros(visible.shape, dtype=q.dtype, device=q.device).masked_fill(~visible, float("-inf"))[:, None]
    if key_bias is not None:
        # (batch, keys, kv_heads) → (batch, heads, 1, keys): each query head has the bias of its KV head.
        bias = key_bias.transpose(1, 2).to(q.dtype).repeat_interleave(group, 1)[:, :, None, :]
        mask = mask + torch.where(age > masks.window, bias, 0.0)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)


def _delayed(q: Tensor, k: Tensor, v: Tensor, masks: PackingMasks, key_bias: Tensor, scale: float) -> Tensor:
    """Two block-sparse attentions, inside and outside the window, merged by log-sum-exp."""
    dim = q.shape[-1]
    bias = key_bias.transpose(1, 2)[..., None].to(k.dtype)
    # [q·scale, 1] · [k, bias] = scale q·k + bias: one extra dimension carries the bias. The rest of the padding keeps
    # the head dimension a power of two, which the kernel asks for.
    q_far = nn.functional.pad(torch.cat([q * scale, torch.ones_like(q[..., :1])], -1), (0, dim - 1))
    k_far = nn.functional.pad(torch.cat([k, bias], -1), (0, dim - 1))
    aux = AuxRequest(lse=True)
    near, near_aux = _flex(q, k, v, block_mask=masks.near, scale=scale, enable_gqa=True, return_aux=aux)
    far, far_aux = _flex(q_far, k_far, v, block_mask=masks.far, scale=1.0, enable_gqa=True, return_aux=aux)
    # Part of the softmax's mass that lies outside the window: e^far / (e^near + e^far). Every query sees itself in the
    # near part, so the sum is finite even where the far part is empty (lse = -inf, part 0).
    far_part = torch.sigmoid(far_aux.lse - near_aux.lse)[..., None].to(near.dtype)
    output: Tensor = near + far_part * (far - near)
    return output


def _fused(q: Tensor, k: Tensor, v: Tensor, masks: PackingMasks, key_bias: Tensor | None, scale: float) -> Tensor:
    """The project's own kernels, for both kinds of masks."""
    assert masks.starts is not None
    assert masks.ends is not None
    # Under autocast queries and keys may have come out of RoPE in float32; values say what products are made in.
    q, k = q.to(v.dtype), k.to(v.dtype)
    bias = None if key_bias is None else key_bias.transpose(1, 2).float().contiguous()
    return fused_attention(q, k, v, bias, masks.starts, masks.ends, masks.window, scale)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    masks: PackingMasks | None = None,
    inline_gates: InlineGates | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """The attention function transformers calls.

    Args:
        module: The attention module; ``module.key_bias`` (batch, sequence, kv_heads) holds ``log(1 - alpha)`` if
            gates are in force.
        query: (batch, heads, sequence, dim) after rotary embedding; before it if gates decide inside.
        key: (batch, kv_heads, sequence, dim), likewise.
        value: (batch, kv_heads, sequence, dim).
        attention_mask: Not used.
        scaling: Factor on the scores.
        masks: The masks of this batch.
        inline_gates: Gates that decide here; their decisions are left in ``module.alpha``.
        arguments: Whatever else transformers passes; none of it may change what attention computes.

    Returns:
        (batch, sequence, heads, dim) and no weights.

    Raises:
        ModelError: The model's attention needs more than this computes.
    """
    check_attention_arguments(module, arguments)
    assert masks is not None
    key_bias: Tensor | None = getattr(module, "key_bias", None)
    if inline_gates is not None:
        query, key, value, module.alpha, key_bias = inline_gates.apply(query, key, value)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if masks.starts is not None:
        out = _fused(query, key, value, masks, key_bias, scale)
    elif masks.full is None:
        out = _dense(query, key, value, masks, key_bias, scale)
    elif key_bias is None:
        out = _flex(query, key, value, block_mask=masks.full, scale=scale, enable_gqa=True)
    else:
        out = _delayed(query, key, value, masks, key_bias, scale)
    return out.transpose(1, 2), None


def use_packed_attention(model: Any) -> None:
    """Make a transformers model call `packed_attention`; pass ``masks=...`` to its forward."""
    from transformers import AttentionInterface

    # No function that makes masks is registered with it: transformers would look in the positions for packed documents
    # first, and wait for the device at every forward pass.
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def choose_fused(model: Any, device: torch.device) -> bool:
    """Whether a transformers model is to attend with the project's own kernels: where they fit its heads and device."""
    return attends_fused(model.model.layers[0].self_attn.head_dim, device)


def attends_fused(head_dim: int, device: torch.device) -> bool:
    """Whether training attends with the project's own kernels, known before there is a model.

    Args:
        head_dim: Numbers of one head's key.
        device: Where it trains.
    """
    return FUSED and device.type == "cuda" and fits_kernels(head_dim, shared_memory(device))


def compile_layers(model: Any) -> None:
    """Compile each decoder layer's forward pass in place: one compilation serves all layers, hooks stay outside."""
    for layer in model.model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)


def checkpoint_layers(model: Any) -> None:
    """Keep each decoder layer's input for the backward pass and compute the rest again; hooks stay outside."""
    from torch.utils.checkpoint import checkpoint

    for layer in model.model.layers:
        # Noise is drawn by hooks, outside: there is no random state to keep.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
