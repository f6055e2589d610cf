"""Tells what a model's cache and weights take, from its configuration and the headers of its files."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hyperscale.errors import ModelError
from hyperscale.kv.formats import AUTO, vector_bytes

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        layers: Number of layers.
        kv_heads: KV heads of a layer.
        head_dim: Numbers of a key or value.
        parameters: Number of weights, or None if only the weights' files would say.
        heads: Query heads of a layer, or None if unknown.
        embedding: Weights that a step only looks up: the token embedding, where the output layer has its own.
    """

    layers: int
    kv_heads: int
    head_dim: int
    parameters: int | None = None
    heads: int | None = None
    embedding: int = 0

    def entry_bytes(self, dtype: str, kv_dtype: str = AUTO) -> int:
        """Bytes of one (key, value) pair, summed over layers and KV heads: 2 · D · itemsize · layers · KV heads.

        Where the cache is quantised, scales and zero points count as well (`kv.formats`).
        """
        return 2 * vector_bytes(kv_dtype, self.head_dim, ITEM_BYTES[dtype]) * self.kv_heads * self.layers

    def weight_bytes(self, dtype: str) -> int | None:
        """Bytes of the weights."""
        return None if self.parameters is None else self.parameters * ITEM_BYTES[dtype]


def shape_from_config(config: dict[str, Any], path: str, parameters: int | None = None) -> Shape:
    """The shape that a ``config.json`` describes.

    Args:
        config: Its contents.
        path: Where it is, for errors.
        parameters: Number of weights, if it is known.

    Raises:
        ModelError: It lacks a size.
    """
    try:
        heads = int(config["num_attention_heads"])
        width = int(config.get("head_dim") or config["hidden_size"] // heads)
        # A tied embedding is the output layer too, which every step reads.
        is_tied = config.get("tie_word_embeddings", True)
        embedding = 0 if is_tied else int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0)
        kv_heads = int(config.get("num_key_value_heads") or heads)
        layers = int(config["num_hidden_layers"])
        if min(layers, kv_heads, width) < 1 or heads % kv_heads:
            raise ValueError(f"sizes that fit ({layers} layers, {heads} query and {kv_heads} KV heads of {width})")
        return Shape(layers, kv_heads, width, parameters, int(heads), embedding)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"the configuration of {path} lacks {error}: it is not a decoder this project can run"
        ) from None


def count_parameters(folder: Path) -> int | None:
    """Number of weights by the headers of a folder's safetensors files; None if there are none or they are broken."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(str(file), framework="numpy") as tensors:
                total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
    return total or None
