"""Runs a transformers model with our attention: one object a forward pass, handed down as a keyword argument.

The model runs as transformers wrote it. Its attention layers call `attention` with queries, keys and values after RoPE,
and hooks on the decoder layers hand the pass the hidden states that enter each layer, before the input norm. For states
that rotate by themselves the hooks also make the model's own RoPE the identity.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hyperscale.engines.attention_arguments import check_attention_arguments
from hyperscale.kv.prefilled import PrefilledPrompt, compact
from hyperscale.kv.trace import dense_prefill_reads
from hyperscale.methods.core.base import LayerInput, State
from hyperscale.methods.core.prefill_view import PrefillView
from hyperscale.methods.core.rotary import Projected, take_rope

_NAME = "hyperscale"
_BLOCK = 256  # queries that prefill attends with at once: bounds memory at O(P * block)


class ForwardPass(Protocol):
    """A forward pass through all layers.

    Attributes:
        state: The method's.
        hidden: Input of the layer now running.
        rope: Applies RoPE at the tokens' positions; set only if the state ``rotates``.
        prefill: Whether it processes a prompt.
    """

    state: State
    hidden: Tensor
    rope: Callable[[Tensor], Tensor]
    prefill: bool

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Layer index.
            queries: (batch, query_heads, tokens, head_dim).
            keys: (batch, kv_heads, tokens, head_dim).
            values: As keys.
            scale: Factor on the scores.

        Returns:
            (batch, tokens, query_heads, head_dim).
        """


class PrefillPass:
    """The prefill of one prompt alone, so that its arithmetic cannot depend on any other."""

    hidden: Tensor
    rope: Callable[[Tensor], Tensor]
    prefill = True

    def __init__(self, state: State, L: int) -> None:
        """Prepare a pass for chains of at most L tokens, branches included."""
        self.state, self._length = state, L
        # What each layer leaves behind, in the order of layers.
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._lens: list[Tensor] = []
        self._expiry: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._scores: list[Tensor] = []

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """See `ForwardPass.attend`; batch is 1."""
        # Either the rule says by position when each key expires, and attention below masks accordingly; or the prompt
        # attends densely and the rule then says what stays of it.
        expiry = self.state.expiry(layer, self.hidden)
        if expiry is None:
            view = PrefillView(queries[0], keys[0], values[0], scale, self._length)
            live, scores = self.state.prune_prompt(layer, view)
        else:
            self._expiry.append(expiry)
            live, scores = expiry > keys.shape[2], None
        # Only one layer's full prompt is ever held: what goes is dropped before the next layer runs.
        k, v, lens, order = compact(keys[0], values[0], live)
        self._keys.append(k)
        self._values.append(v)
        self._lens.append(lens)
        if order is not None:
            self._positions.append(order)
        if scores is not None:
            self._scores.append(scores if order is None else scores.gather(1, order))
        if expiry is None and _runs_flash(queries, keys, values):
            return dense_attention(queries, keys, values, scale).transpose(1, 2)
        return sparse_attention(queries[0], keys[0], values[0], expiry, scale).transpose(0, 1)[None]

    def prompt(self) -> PrefilledPrompt:
        """What the pass leaves behind."""
        expiry, positions, scores = (
            torch.stack(layers) if layers else None for layers in (self._expiry, self._positions, self._scores)
        )
        length = self._prompt_tokens
        return PrefilledPrompt(length, self._keys, self._values, torch.stack(self._lens), expiry, positions, scores)

    def count_reads(self) -> Tensor:
        """() int64 on the device, the entries that the prompt's queries attended to, over all rows."""
        length, lens = self._prompt_tokens, self._lens
        if not self._expiry:
            rows = sum(map(len, lens))
            return torch.full((), rows * dense_prefill_reads(length), device=lens[0].device)
        expiry = torch.stack(self._expiry)
        return (expiry.clamp(max=length) - torch.arange(length, device=expiry.device)).clamp(min=0).sum()

    @property
    def _prompt_tokens(self) -> int:
        return self.hidden.shape[1]


class DecodeAttention(Protocol):
    """Writes a step's entries and attends to what lives: a `RaggedCache`, or kernels that read one."""

    def width(self, layer: int) -> int:
        """The most slots that any row of a layer has room for."""

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        scale: float,
        *,
        selected: Tensor | None = None,
        with_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `RaggedCache.attend`."""


class StaticAttention(DecodeAttention, Protocol):
    """Attention whose launches depend on what `begin` was told, and on nothing else that the host knows."""

    def begin(self, chains: int, width: int) -> None:
        """A step begins.

        Args:
            chains: Its chains, padding included.
            width: What `width` is to say of every layer.
        """


class DecodePass:
    """One token of every chain; further rows of the batch are padding and attend to nothing."""

    hidden: Tensor
    rope: Callable[[Tensor], Tensor]
    prefill = False

    def __init__(self, state: State, attention: DecodeAttention, chains: int, *, observed: bool = False) -> None:
        """Prepare a pass for so many chains; ``observed`` is whether the state is shown attention weights."""
        self.state, self._attention, self._chains, self._observed = state, attention, chains, observed

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """See `ForwardPass.attend`; tokens is 1."""
        n = self._chains  # rows from n on are padding
        width = self._attention.width(layer)
        layer_input = LayerInput(self.hidden, queries[:n, :, 0], keys[:n, :, 0], values[:n, :, 0], scale, width)
        # The order of calls is part of the contract of `State`: write_slots, merge, select, then observe.
        slots = self.state.write_slots(layer, layer_input)
        entry = self.state.merge(layer, layer_input)
        selected = self.state.select(layer, layer_input)
        out, weights = self._attention.attend(
            layer, layer_input.queries, *entry, slots, scale, selected=selected, with_weights=self._observed
        )
        if weights is not None:
            self.state.observe(layer, weights)
        if n < len(queries):  # the model goes on with padding, whatever is in it
            out = torch.cat([out, out.new_zeros(len(queries) - n, *out.shape[1:])])
        return out[:, None]


def dense_attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Causal attention by torch's flash kernel; `sparse_attention` without expiry, but for rounding.

    Args:
        queries: (batch, query_heads, P, head_dim).
        keys: (batch, kv_heads, P, head_dim).
        values: As keys.
        scale: Factor on the scores.

    Returns:
        (batch, query_heads, P, head_dim).
    """
    # By name: cuDNN's, which torch may take first, plans anew for every length of a prompt.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return nn.functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=True
        )


def _runs_flash(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether torch's flash attention computes `dense_attention`: half precision on a GPU.

    Blocks of queries are a dozen launches each, and a small model's prefill is then bound by launches. Elsewhere blocks
    stay: torch's other kernels hold the scores of all queries, or round float32 to fewer bits.
    """
    if queries.device.type != "cuda" or queries.dtype not in (torch.float16, torch.bfloat16):
        return False
    wanted = torch.backends.cuda.SDPAParams(queries, keys, values, None, 0.0, True, True)
    return bool(torch.backends.cuda.can_use_flash_attention(wanted))


def sparse_attention(queries: Tensor, keys: Tensor, values: Tensor, expiry: Tensor | None, scale: float) -> Tensor:
    """Causal attention in which key k is visible to query q iff k <= q < expiry[k], in blocks of queries.

    Args:
        queries: (query_heads, P, head_dim).
        keys: (kv_heads, P, head_dim).
        values: (kv_heads, P, head_dim).
        expiry: (kv_heads, P) int64 or None.
        scale: Factor on the scores.

    Returns:
        (query_heads, P, head_dim).
    """
    kv_heads, length, dim = keys.shape
    # Query heads that share a KV head side by side: (kv_heads, group, P, head_dim).
    query_groups = queries.view(kv_heads, -1, length, dim)
    out = torch.empty_like(query_groups)
    position = torch.arange(length, device=keys.device)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        # Keys after the block's last query are hidden from all of it, so scores span `stop` keys only.
        q = position[start:stop, None]
        hidden = position[:stop] > q
        if expiry is not None:
            hidden = hidden | (q >= expiry[:, None, None, :stop])
        scores = query_groups[:, :, start:stop] @ keys[:, None, :stop].transpose(2, 3) * scale
        weights = torch.softmax(scores.masked_fill_(hidden, float("-inf")), dim=-1, dtype=torch.float32)
        out[:, :, start:stop] = weights.to(values.dtype) @ values[:, None, :stop]
    return out.view(queries.shape)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers.

    Raises:
        ModelError: The model's attention uses an argument that is not computed here.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    current: ForwardPass = kwargs.pop(_NAME)
    scale: float = kwargs.pop("scaling")
    check_attention_arguments(module, {"dropout": dropout, **kwargs})
    if current.state.rotates:
        projections = Projected(query, key, value, current.rope, current.prefill)
        query, key, value = current.state.rotate(layer, projections)
    return current.attend(layer, query, key, value, scale), None


def _hand_over_input(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """Hand the pass the input of a decoder layer and, for states that rotate, make the layer's RoPE the identity."""
    current: ForwardPass | None = kwargs.get(_NAME)
    if current is None:  # the model is used by somebody else
        return None
    current.hidden = args[0] if args else kwargs["hidden_states"]
    if not current.state.rotates:
        return None
    current.rope, identity = take_rope(kwargs["position_embeddings"])
    return args, {**kwargs, "position_embeddings": identity}


def install_hooks(model: Any) -> None:
    """Register our attention and hook the model's layers; harmless to the model's other uses, and idempotent."""
    from transformers import AttentionInterface

    # No mask function is registered under this name: transformers then builds no mask, and we need none.
    AttentionInterface.register(_NAME, attention)
    # Before the layer's input norm, where methods with gates look; the attention function sees queries and keys only.
    for layer in model.model.layers:
        if not getattr(layer, "_hyperscale_hooked", False):
            layer.register_forward_pre_hook(_hand_over_input, with_kwargs=True)
            layer._hyperscale_hooked = True


@contextmanager
def use_own_attention(model: Any) -> Iterator[None]:
    """Use our attention within the block, and the model's own again after it."""
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def run(model: Any, current: ForwardPass, ids: Tensor, positions: Tensor) -> Tensor:
    """Logits of the last token.

    Args:
        model: A transformers causal LM after `install_hooks`, within `use_own_attention`.
        current: The pass.
        ids: (batch, tokens).
        positions: (batch, tokens).

    Returns:
        (batch, vocabulary).
    """
    # transformers passes arguments that it does not know down to every layer, and so to `attention`.
    extra = {_NAME: current}
    output = model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1, **extra)
    logits: Tensor = output.logits[:, -1]
    return logits
