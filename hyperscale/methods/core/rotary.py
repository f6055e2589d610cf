"""Queries, keys and values before RoPE, for rules that read or change them there, and RoPE itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hyperscale.errors import MethodError


@dataclass(frozen=True)
class Projected:
    """Queries, keys and values of one layer, before RoPE (after their norms, where a model has them).

    Attributes:
        queries: (batch, query_heads, tokens, head_dim). The batch is one prompt, or one token of each chain; rows past
            the chains are then padding.
        keys: (batch, kv_heads, tokens, head_dim).
        values: As keys.
        rope: Applies RoPE at the tokens' positions.
        prompt: Whether this is a prompt.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    rope: Callable[[Tensor], Tensor]
    prompt: bool


def rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in the form of the supported models: dimension i is paired with i + head_dim / 2.

    Args:
        vectors: (batch, heads, tokens, head_dim).
        cos: (batch, tokens, head_dim).
        sin: As cos.
    """
    half = vectors.shape[-1] // 2
    # The quarter turn of each pair: (x_i, x_{i + half}) to (-x_{i + half}, x_i).
    quarter = torch.cat([-vectors[..., half:], vectors[..., :half]], dim=-1)
    return vectors * cos[:, None] + quarter * sin[:, None]


def take_rope(embeddings: tuple[Tensor, Tensor]) -> tuple[Callable[[Tensor], Tensor], tuple[Tensor, Tensor]]:
    """RoPE as a function, and the position embeddings with which the model's own RoPE does nothing, bit for bit."""
    cos, sin = embeddings
    # Multiplying by 1 and adding 0 times something finite is exact in floating point.
    return partial(rotate, cos=cos, sin=sin), (torch.ones_like(cos), torch.zeros_like(sin))


def require_rope(attentions: Sequence[nn.Module], other: str, method: str) -> None:
    """Refuse a model for a rule that goes by the rotation of all layers, unless `rotate` is that rotation.

    Args:
        attentions: The attention modules, one per layer.
        other: What the model has in the place of this RoPE (`HostModel.other_rope`).
        method: Name of the method.

    Raises:
        MethodError: A layer has no RoPE (SmolLM3), or RoPE of another form.
    """
    layers = enumerate(attentions)
    without = [str(layer) for layer, attention in layers if not getattr(attention, "use_rope", True)]
    found = f"this model's layers {', '.join(without)} have none" if without else other
    if found:
        raise MethodError(f"{method} needs RoPE in every layer, and {found}: choose another method")


def scale_neurons(vectors: Tensor, factor: Tensor | float, every: int = 1) -> Tensor:
    """Multiply the last dimension of the heads 0, ``every``, 2 ``every``, … by a factor: 0 hides it from attention.

    Args:
        vectors: (batch, heads, tokens, head_dim).
        factor: A number, or a tensor of one.
        every: Distance of the heads.
    """
    factors = torch.ones(vectors.shape[1], 1, vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
    factors[::every, :, -1] = factor
    return vectors * factors
