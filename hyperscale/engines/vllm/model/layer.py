"""The attention layer: vLLM's, with one cache for all layers and the verdicts as an argument of the operator."""

from typing import Any

import torch
from torch import Tensor
from vllm.compilation.breakable_cudagraph import eager_break_during_capture
from vllm.config import get_current_vllm_config
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.utils.torch_utils import direct_register_custom_op

from hyperscale.engines.vllm.arms import read_arms
from hyperscale.engines.vllm.backends.select import backend_class
from hyperscale.engines.vllm.cache_spec import RaggedSpec
from hyperscale.engines.vllm.worker import memory
from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
from hyperscale.kv.formats import AUTO, vector_bytes


class RaggedAttention(Attention):
    """Attention whose KV heads keep lists of their own lengths.

    The first layer's cache is that of all layers; the others share it, as vLLM lets layers do.
    """

    def __init__(self, stock: Attention, prefix: str, **kwargs: Any) -> None:
        """Take the place of the attention layer that the stock model has made.

        Args:
            stock: That layer.
            prefix: Its name.
            kwargs: More for the base class.
        """
        config = get_current_vllm_config()
        CacheWorker.current = None  # of an engine that this process had before
        memory.wrap_available_memory()
        del config.compilation_config.static_forward_context[prefix]  # the name is free again
        self.layer = extract_layer_index(prefix)
        first = prefix.replace(f".{self.layer}.", ".0.", 1)
        super().__init__(
            stock.num_heads,
            stock.head_size,
            stock.impl.scale,
            num_kv_heads=stock.num_kv_heads,
            cache_config=config.cache_config,
            prefix=prefix,
            kv_sharing_target_layer_name=first if self.layer else None,
            attn_backend=backend_class(),
            **kwargs,
        )
        self._layers = config.model_config.get_num_layers(config.parallel_config)

    def get_kv_cache_spec(self, vllm_config: Any) -> RaggedSpec:
        """The cache of all layers."""
        parallel = vllm_config.parallel_config
        arms = read_arms(vllm_config.additional_config, vllm_config.model_config.hf_config)
        dtype, width, options = self.kv_cache_torch_dtype, self.head_size, arms[0]
        if options.kv_dtype != AUTO:  # to vLLM, keys and values are vectors of bytes, their scales included
            dtype, width = torch.uint8, vector_bytes(options.kv_dtype, width, dtype.itemsize)
        return RaggedSpec(
            block_size=vllm_config.cache_config.block_size,
            num_kv_heads=self._layers * self.num_kv_heads,
            head_size=width,
            dtype=dtype,
            options=options,
            step_tokens=vllm_config.scheduler_config.max_num_batched_tokens,
            total_lists=self._layers * self.num_kv_heads * parallel.tensor_parallel_size,
            arms=arms,
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, logits: Tensor | None) -> Tensor:
        """Attend.

        Args:
            query: (tokens, query heads * head_dim), after RoPE.
            key: (tokens, heads * head_dim), after RoPE.
            value: As key.
            logits: (tokens, heads), DMS's; None if the model has no gates.

        Returns:
            (tokens, query heads * head_dim).
        """
        out = torch.empty_like(query)
        shape = (-1, self.num_kv_heads, self.head_size)
        torch.ops.vllm.hyperscale_attention(
            query.view(-1, self.num_heads, self.head_size),
            key.view(shape),
            value.view(shape),
            logits,
            out.view(-1, self.num_heads, self.head_size),
            self.layer_name,
        )
        return out

    def merge(self, positions: Tensor, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means in place of keys and values, before RoPE, of a method that merges (`RaggedImpl.merge`).

        Args:
            positions: (tokens,).
            query: (tokens, query heads * head_dim), before RoPE.
            key: (tokens, heads * head_dim), before RoPE.
            value: As key.

        Returns:
            Keys and values, as they came, and (tokens, heads) float32, above 0 where a token is merged.
        """
        shape = (-1, self.num_kv_heads, self.head_size)
        keys, values = (part.contiguous().clone() for part in (key, value))
        logits = torch.full((len(key), self.num_kv_heads), -1.0, dtype=torch.float32, device=key.device)
        torch.ops.vllm.hyperscale_merge(
            positions,
            query.view(-1, self.num_heads, self.head_size),
            keys.view(shape),
            values.view(shape),
            logits,
            self.layer_name,
        )
        return keys, values, logits


def hyperscale_attention(
    query: Tensor, key: Tensor, value: Tensor, logits: Tensor | None, out: Tensor, layer_name: str
) -> None:
    """The operator: everything of a layer that depends on the batch; see `RaggedImpl.attend` for the arguments."""
    context = get_forward_context()
    metadata = context.attn_metadata
    if metadata is None:  # a trial run of the model, without a cache
        out.zero_()
        return
    layer = context.no_compile_layers[layer_name]
    step = metadata[layer_name] if isinstance(metadata, dict) else metadata
    layer.impl.attend(step, layer.layer, query, key, value, logits, out)


def _abstract_attention(
    query: Tensor, key: Tensor, value: Tensor, logits: Tensor | None, out: Tensor, layer_name: str
) -> None:
    return


# Its Python may not become part of a CUDA graph: `hyperscale.engines.vllm.plugin.configure` lets torch.compile split
# graphs here, and ``eager_break_during_capture`` lets vLLM's graphs without torch.compile do so.
direct_register_custom_op(
    "hyperscale_attention",
    eager_break_during_capture(hyperscale_attention),
    mutates_args=["out"],
    fake_impl=_abstract_attention,
)


def hyperscale_merge(
    positions: Tensor, query: Tensor, key: Tensor, value: Tensor, logits: Tensor, layer_name: str
) -> None:
    """The operator in front of RoPE, of a method that merges; see `RaggedAttention.merge`."""
    context = get_forward_context()
    metadata = context.attn_metadata
    if metadata is None:
        return
    layer = context.no_compile_layers[layer_name]
    step = metadata[layer_name] if isinstance(metadata, dict) else metadata
    layer.impl.merge(step, layer.layer, positions, query, key, value, logits)


def _abstract_merge(
    positions: Tensor, query: Tensor, key: Tensor, value: Tensor, logits: Tensor, layer_name: str
) -> None:
    return


direct_register_custom_op(
    "hyperscale_merge",
    eager_break_during_capture(hyperscale_merge),
    mutates_args=["key", "value", "logits"],
    fake_impl=_abstract_merge,
)
