"""Qwen2, Qwen3 and Llama with ragged attention and gates of DMS; weights are named as in published checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import CacheConfig, VllmConfig, get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ColumnParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer, Qwen2ForCausalLM, Qwen2Model
from vllm.model_executor.models.qwen3 import Qwen3DecoderLayer, Qwen3ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from hyperscale.engines.vllm.model.layer import RaggedAttention
from hyperscale.engines.vllm.options import Options
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.utils import counter_rng

_DIMS = {"input_ids": 0, "positions": -1, "intermediate_tensors": 0, "inputs_embeds": 0}


class RaggedSelfAttention(nn.Module):
    """A stock self-attention module with lists of their own lengths, and with gates where the checkpoint has them.

    The verdict on token i comes from hidden state i + 1: from a projection of the hidden states before the layer's
    input norm, or from a borrowed neuron, the last one of each KV head's first query head, which attention then does
    not see
    (arXiv 2506.05345, section 3; ``dms_separate_alpha``).
    """

    rows: Tensor

    def __init__(self, stock: Any, config: Any, prefix: str) -> None:
        """Take over a stock module's parts.

        Args:
            stock: ``Qwen2Attention``, ``Qwen3Attention`` or ``LlamaAttention``.
            config: The transformers configuration.
            prefix: The module's name.
        """
        super().__init__()
        self.qkv_proj: Any = stock.qkv_proj
        self.o_proj: Any = stock.o_proj
        self.rotary_emb: Any = stock.rotary_emb
        self.head_dim: int = stock.head_dim
        self.q_size, self.kv_size = stock.q_size, stock.kv_size
        if hasattr(stock, "q_norm"):
            self.q_norm: Any = stock.q_norm
            self.k_norm: Any = stock.k_norm
        self.attn = RaggedAttention(stock.attn, f"{prefix}.attn")
        self.heads: int = stock.num_kv_heads
        options = Options.read(get_current_vllm_config().additional_config, config)
        gated = getattr(config, "dms_window_size", None) is not None
        gate = GateConfig.from_hf(config) if gated else GateConfig()
        self.source = ""
        if options.rule == "dms":
            self.source = "projection" if gate.separate else "neuron"
        if options.rule == "hashed":
            self.source, self.evicted = "hashed", 1 - 1 / options.cr
            first = self.attn.layer * stock.total_num_kv_heads + get_tensor_model_parallel_rank() * self.heads
            self.register_buffer("rows", torch.arange(first, first + self.heads), persistent=False)
        self.scale, self.offset = gate.alpha_scale, gate.initial_offset
        if gated and gate.separate:
            self.dms_proj_alpha: Any = ColumnParallelLinear(
                config.hidden_size,
                stock.total_num_kv_heads,
                bias=bool(getattr(config, "attention_bias", False)),
                quant_config=None,
                prefix=f"{prefix}.dms_proj_alpha",
            )
            self.dms_proj_alpha_norm: Any = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor, before: Tensor) -> Tensor:
        """Attend.

        Args:
            positions: (tokens,).
            hidden_states: (tokens, hidden), after the layer's input norm.
            before: (tokens, hidden), in front of it.

        Returns:
            (tokens, hidden).
        """
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        if hasattr(self, "q_norm"):
            q = self.q_norm(q.reshape(*q.shape[:-1], -1, self.head_dim)).view(q.shape)
            k = self.k_norm(k.reshape(*k.shape[:-1], -1, self.head_dim)).view(k.shape)
        logits: Tensor | None = None
        if self.source == "projection":
            projected, _ = self.dms_proj_alpha(self.dms_proj_alpha_norm(before))
            logits = projected.to(torch.float32) * self.scale - self.offset
        elif self.source == "neuron":
            borrowed = self._borrowed(q)
            logits = borrowed.to(torch.float32) * self.scale - self.offset
            q = self._without(q)
        elif self.source == "hashed":
            drawn = counter_rng.uniform(counter_rng.mix(self.rows, positions[:, None].long()))
            logits = torch.where(drawn < self.evicted, 1.0, -1.0).to(torch.float32)
        q, k = self.rotary_emb(positions, q, k)
        if self.source == "neuron":
            q = self._without(q)
        output: Tensor = self.o_proj(self.attn(q.contiguous(), k.contiguous(), v.contiguous(), logits))[0]
        return output

    def _borrowed(self, q: Tensor) -> Tensor:
        neuron: Tensor = q.reshape(q.shape[0], self.heads, -1, self.head_dim)[:, :, 0, -1]
        return neuron

    def _without(self, q: Tensor) -> Tensor:
        grouped = q.reshape(q.shape[0], self.heads, -1, self.head_dim).clone()
        grouped[:, :, 0, -1] = 0
        return grouped.view(q.shape)


def _layer_forward(
    self: Any, positions: Tensor, hidden_states: Tensor, residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A decoder layer that also shows its attention the hidden states in front of the input norm."""
    if residual is None:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
    else:
        hidden_states, residual = self.input_layernorm(hidden_states, residual)
    hidden_states = self.self_attn(positions, hidden_states, residual)
    hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
    return self.mlp(hidden_states), residual


class _Qwen2Layer(Qwen2DecoderLayer):
    forward = _layer_forward
    self_attn: nn.Module

    def __init__(
        self,
        config: Any,
        cache_config: CacheConfig | None = None,
        quant_config: QuantizationConfig | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(config, cache_config, quant_config, prefix)
        self.self_attn = RaggedSelfAttention(self.self_attn, config, f"{prefix}.self_attn")


class _Qwen3Layer(Qwen3DecoderLayer):
    forward = _layer_forward
    self_attn: nn.Module

    def __init__(
        self,
        config: Any,
        cache_config: CacheConfig | None = None,
        quant_config: QuantizationConfig | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(config, cache_config, quant_config, prefix)
        self.self_attn = RaggedSelfAttention(self.self_attn, config, f"{prefix}.self_attn")


class _LlamaLayer(LlamaDecoderLayer):
    forward = _layer_forward
    self_attn: nn.Module

    def __init__(self, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(vllm_config, prefix, **kwargs)
        config = vllm_config.model_config.hf_config
        self.self_attn = RaggedSelfAttention(self.self_attn, config, f"{prefix}.self_attn")


@support_torch_compile(dynamic_arg_dims=_DIMS)
class _Qwen2(Qwen2Model):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, decoder_layer_type=_Qwen2Layer)


@support_torch_compile(dynamic_arg_dims=_DIMS)
class _Qwen3(Qwen2Model):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, decoder_layer_type=_Qwen3Layer)


@support_torch_compile(dynamic_arg_dims=_DIMS)
class _Llama(LlamaModel):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=_LlamaLayer)


def _build(self: Any, vllm_config: VllmConfig, prefix: str, inner: Callable[..., nn.Module]) -> None:
    """What the stock causal models build, around an inner model of ours."""
    nn.Module.__init__(self)
    config = vllm_config.model_config.hf_config
    self.config, self.quant_config, self.vllm_config = config, vllm_config.quant_config, vllm_config
    self.model = inner(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
    self.lm_head = ParallelLMHead(
        config.vocab_size,
        config.hidden_size,
        quant_config=vllm_config.quant_config,
        prefix=maybe_prefix(prefix, "lm_head"),
    )
    if config.tie_word_embeddings:
        self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
    self.logits_processor = LogitsProcessor(config.vocab_size)
    self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors


class Trimmed:
    """Never draws a row of the output layer that is no token (`Options.vocabulary`)."""

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits with those rows at minus infinity."""
        logits: Tensor | None = super().compute_logits(hidden_states)  # type: ignore[misc]
        config = self.vllm_config  # type: ignore[attr-defined]
        rows = Options.read(config.additional_config, config.model_config.hf_config).vocabulary
        if logits is not None and rows:
            logits[:, rows:] = float("-inf")
        return logits


class HyperscaleQwen2ForCausalLM(Trimmed, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Qwen2)


class HyperscaleQwen3ForCausalLM(Trimmed, Qwen3ForCausalLM):
    """Qwen3."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Qwen3)


class HyperscaleLlamaForCausalLM(Trimmed, LlamaForCausalLM):
    """Llama 2, 3 and what has their shape."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Llama)


class TrimmedQwen2ForCausalLM(Trimmed, Qwen2ForCausalLM):
    """Stock Qwen2."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.vllm_config = vllm_config


class TrimmedQwen3ForCausalLM(Trimmed, Qwen3ForCausalLM):
    """Stock Qwen3."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.vllm_config = vllm_config


class TrimmedLlamaForCausalLM(Trimmed, LlamaForCausalLM):
    """Stock Llama."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.vllm_config = vllm_config
