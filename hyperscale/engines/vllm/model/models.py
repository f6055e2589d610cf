"""Qwen2, Qwen3 and Llama with our self-attention; weights are named as in published checkpoints.

A class of vLLM's is changed from the inside out: its decoder layer gets our self-attention, its inner model that layer,
its causal model that inner model. A new family takes these three, and a line in `hyperscale.engines.vllm.families`.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import CacheConfig, VllmConfig
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer, Qwen2ForCausalLM, Qwen2Model
from vllm.model_executor.models.qwen3 import Qwen3DecoderLayer, Qwen3ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from hyperscale.engines.vllm.model.self_attention import RaggedSelfAttention
from hyperscale.engines.vllm.options import Options

# Which dimension of each argument of the inner model's forward varies from step to step, for torch.compile.
_DIMS = {"input_ids": 0, "positions": -1, "intermediate_tensors": 0, "inputs_embeds": 0}


def _complete_biases(layer: Any, config: Any) -> None:
    """Give a layer of Qwen3's the bias of the output projection, which vLLM's class leaves out and transformers has."""
    attention = getattr(layer, "self_attn", None)  # another rank's layers have none
    if config.model_type != "qwen3" or not getattr(config, "attention_bias", False) or attention is None:
        return
    stock = attention.o_proj
    attention.o_proj = RowParallelLinear(
        stock.input_size, stock.output_size, bias=True, quant_config=None, prefix=getattr(stock, "prefix", "")
    )


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


def _qwen_layer(stock_layer: Any) -> Any:
    """A decoder layer class of Qwen2's or Qwen3's with our self-attention.

    Args:
        stock_layer: ``Qwen2DecoderLayer`` or ``Qwen3DecoderLayer``.
    """

    class RaggedQwenLayer(stock_layer):
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
            _complete_biases(self, config)
            self.self_attn = RaggedSelfAttention(self.self_attn, config, f"{prefix}.self_attn")

    return RaggedQwenLayer


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
        super().__init__(vllm_config=vllm_config, prefix=prefix, decoder_layer_type=_qwen_layer(Qwen2DecoderLayer))


@support_torch_compile(dynamic_arg_dims=_DIMS)
class _Qwen3(Qwen2Model):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, decoder_layer_type=_qwen_layer(Qwen3DecoderLayer))


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


class VocabularyMask:
    """Never draws a row of the output layer that is no token (`Options.vocabulary`, `Options.unused`)."""

    @cached_property
    def _options(self) -> Options:
        # Read once: options are checked whenever they are read, and these are asked in every step.
        config = self.vllm_config  # type: ignore[attr-defined]
        return Options.read(config.additional_config, config.model_config.hf_config)

    @cached_property
    def _unused(self) -> Tensor:
        """(any,) int64, `Options.unused` on the model's device, so that no step waits for a copy."""
        device = next(self.parameters()).device  # type: ignore[attr-defined]
        return torch.tensor(sorted(self._options.unused), dtype=torch.int64, device=device)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits with those rows at minus infinity; None on a rank that has none."""
        logits: Tensor | None = super().compute_logits(hidden_states)  # type: ignore[misc]
        if logits is None:
            return None
        if rows := self._options.vocabulary:
            logits[:, rows:] = float("-inf")
        if self._options.unused:
            logits.index_fill_(1, self._unused, float("-inf"))
        return logits


class HyperscaleQwen2ForCausalLM(VocabularyMask, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Qwen2)


class HyperscaleQwen3ForCausalLM(VocabularyMask, Qwen3ForCausalLM):
    """Qwen3."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Qwen3)


class HyperscaleLlamaForCausalLM(VocabularyMask, LlamaForCausalLM):
    """Llama 2, 3 and what has their shape."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        _build(self, vllm_config, prefix, _Llama)


def _trimmed(stock_model: Any) -> Any:
    """A stock model class of vLLM's, its own attention and cache included, with `VocabularyMask`."""

    class TrimmedForCausalLM(VocabularyMask, stock_model):
        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            self.vllm_config = vllm_config
            for layer in self.model.layers:
                _complete_biases(layer, vllm_config.model_config.hf_config)

    return TrimmedForCausalLM


TrimmedQwen2ForCausalLM = _trimmed(Qwen2ForCausalLM)
TrimmedQwen3ForCausalLM = _trimmed(Qwen3ForCausalLM)
TrimmedLlamaForCausalLM = _trimmed(LlamaForCausalLM)
