"""Tells a method's `State` of the model that it runs on: vLLM's modules have other attributes than transformers'."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch

from hyperscale.engines.vllm.worker.tables import EntryTables
from hyperscale.methods.core.base import HostModel


@dataclass(frozen=True)
class ModelShape:
    """What states ask of the model that they run on.

    Attributes:
        query_heads: Query heads of a layer.
        head_dim: Size of a key.
        dtype: Of the model.
        config: Its transformers configuration.
    """

    query_heads: int
    head_dim: int
    dtype: torch.dtype
    config: Any


def host_model(tables: EntryTables, shape: ModelShape, device: torch.device) -> HostModel:
    """The model as states ask for it.

    Args:
        tables: The worker's tables, which have a row for each of the model's layers.
        shape: What is known of the model.
        device: Where the state lives.
    """
    attention = SimpleNamespace(head_dim=shape.head_dim)
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(shape.config).to(device)
    attentions = cast("Sequence[torch.nn.Module]", [attention] * tables.layers)
    config = SimpleNamespace(num_attention_heads=shape.query_heads)
    return HostModel(attentions, config, tables.heads, len(tables.lens), device, shape.dtype, rotary)
