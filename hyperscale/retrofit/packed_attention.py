"""Attention over packed documents, with or without the delayed-eviction mask, for training.

The mask of DMS adds ``log(1 - alpha_k)`` to the score of every key k older than the window and nothing to younger ones
(arXiv 2506.05345, section 3.2). It is never materialised on CUDA: keys inside and outside the window are attended to
by two FlexAttention calls, the bias riding along as one more dimension of query and key, and the two results are
merged by their log-sum-exp. On the CPU the same function is computed densely; it is the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from hyperscale.retrofit.inline_gates import Inside

#: Name under which the function is registered with transformers.
NAME = "hyperscale_packed"


@dataclass(frozen=True)
class Packed:
    """Which keys each query may see.

    Attributes:
        document: (batch, sequence) number of the document a token belongs to.
        window: Age up to which a key is seen whatever its verdict.
        full: Block mask of all earlier keys of the same document (CUDA only).
        near: Block mask of those inside the window.
        far: Block mask of those outside the window.
    """

    document: Tensor
    window: int
    full: BlockMask | None = None
    near: BlockMask | None = None
    far: BlockMask | None = None

    @classmethod
    def build(cls, document: Tensor, window: int | None = None) -> "Packed":
        """Masks for rows of packed documents; block masks are made on CUDA only, those of a window if one is given."""
        if document.device.type != "cuda":
            return cls(document, window or 0)
        batch, length = document.shape

        def same(b: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return document[b, q] == document[b, k]

        def blocks(rule: Callable[[Tensor, Tensor], Tensor]) -> BlockMask:
            return _compiled_block_mask()(
                lambda b, h, q, k: same(b, q, k) & rule(q, k), batch, None, length, length, document.device
            )

        full = blocks(lambda q, k: q >= k)
        if window is None:
            return cls(document, 0, full)
        return cls(
            document,
            window,
            full,
            near=blocks(lambda q, k: (q >= k) & (q - k <= window)),
            far=blocks(lambda q, k: q - k > window),
        )


@cache
def _compiled_block_mask() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask, dynamic=False)


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _flex(*args: Any, **kwargs: Any) -> Any:
    """FlexAttention, compiled here unless the caller is being compiled as a whole."""
    if torch.compiler.is_compiling():
        return flex_attention(*args, **kwargs)
    return _compiled_flex()(*args, **kwargs)


def _dense(q: Tensor, k: Tensor, v: Tensor, packed: Packed, key_bias: Tensor | None, scale: float) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    length = q.shape[2]
    place = torch.arange(length, device=q.device)
    age = place[:, None] - place[None, :]
    seen = (packed.document[:, :, None] == packed.document[:, None, :]) & (age >= 0)
    mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf"))[:, None]
    if key_bias is not None:
        bias = key_bias.transpose(1, 2).to(q.dtype).repeat_interleave(groups, 1)[:, :, None, :]
        mask = mask + torch.where(age > packed.window, bias, 0.0)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)


def _delayed(q: Tensor, k: Tensor, v: Tensor, packed: Packed, key_bias: Tensor, scale: float) -> Tensor:
    """Two block-sparse attentions merged by log-sum-exp."""
    dim = q.shape[-1]
    bias = key_bias.transpose(1, 2)[..., None].to(k.dtype)
    # One extra dimension carries the bias; the rest of the padding keeps the head dimension a power of two.
    q_far = nn.functional.pad(torch.cat([q * scale, torch.ones_like(q[..., :1])], -1), (0, dim - 1))
    k_far = nn.functional.pad(torch.cat([k, bias], -1), (0, dim - 1))
    aux = AuxRequest(lse=True)
    near, near_aux = _flex(q, k, v, block_mask=packed.near, scale=scale, enable_gqa=True, return_aux=aux)
    far, far_aux = _flex(q_far, k_far, v, block_mask=packed.far, scale=1.0, enable_gqa=True, return_aux=aux)
    # Every query sees itself in the near part, so the total is finite even where the far part is empty.
    share = torch.sigmoid(far_aux.lse - near_aux.lse)[..., None].to(near.dtype)
    merged: Tensor = near + share * (far - near)
    return merged


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    packed: Packed | None = None,
    inside: Inside | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function transformers calls.

    Args:
        module: The attention module; ``module.key_bias`` (batch, sequence, kv_heads) holds ``log(1 - alpha)`` if
            gates are in force.
        query: (batch, heads, sequence, dim) after rotary embedding; before it if decisions are made inside.
        key: (batch, kv_heads, sequence, dim).
        value: (batch, kv_heads, sequence, dim).
        attention_mask: Not used.
        scaling: Factor on the scores.
        packed: The masks of this batch.
        inside: Decisions to be made here; they are left in ``module.alpha``.

    Returns:
        (batch, sequence, heads, dim) and no weights.
    """
    assert packed is not None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    key_bias: Tensor | None = getattr(module, "key_bias", None)
    if inside is not None:
        query, key, value, module.alpha, key_bias = inside.apply(query, key, value)
    if packed.full is None:
        out = _dense(query, key, value, packed, key_bias, scale)
    elif key_bias is None:
        out = _flex(query, key, value, block_mask=packed.full, scale=scale, enable_gqa=True)
    else:
        out = _delayed(query, key, value, packed, key_bias, scale)
    return out.transpose(1, 2), None


def use_packed_attention(model: Any) -> None:
    """Make a transformers model call `packed_attention`; pass ``packed=...`` to its forward."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    model.set_attn_implementation(NAME)


def compile_layers(model: Any) -> None:
    """Compile each decoder layer's forward pass in place: one compilation serves all layers, hooks stay outside."""
    for layer in model.model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)


def checkpoint_layers(model: Any) -> None:
    """Keep each decoder layer's input for the backward pass and compute the rest again; hooks stay outside."""
    from torch.utils.checkpoint import checkpoint

    for layer in model.model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
