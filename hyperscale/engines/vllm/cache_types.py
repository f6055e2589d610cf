"""Names vLLM's own types of a cache and says what an entry takes in them; imports nothing of vLLM's.

Where the bytes come from, in vLLM 0.26 and 0.32: ``AttentionSpec`` of ``vllm/v1/kv_cache_interface.py``, and
``TurboQuantConfig`` of ``vllm/model_executor/layers/quantization/turboquant/config.py``, as ``slot_size_aligned``.
Only what an entry takes is counted: where layers of two types share a pool, vLLM pads the blocks of one of them.
"""

import ast
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from hyperscale.models.shape import ITEM_BYTES, Shape

_FLOAT8 = ("fp8", "fp8_e4m3", "fp8_e5m2")  # one scale for all of a layer
_PER_TOKEN_HEAD = {"fp8_per_token_head": 8, "int8_per_token_head": 8, "int4_per_token_head": 4}  # bits of a number
# Bits of a key's and of a value's numbers. Keys of 8 bits are float8 without a scale.
_TURBOQUANT = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
}

CACHE_TYPES = (*_FLOAT8, *_PER_TOKEN_HEAD, *_TURBOQUANT)
"""Types of a cache whose bytes are known here. Which of them a version has, and a GPU runs, is vLLM's to say."""

CPU_CACHE_TYPES = _FLOAT8
"""Those that vLLM runs on the CPU."""

_PLAIN_ENDS = 2  # layers at either end of the model that turboquant leaves in the model's own type


@cache
def installed_cache_types() -> tuple[str, ...]:
    """Of `CACHE_TYPES` those that the installed vLLM names; empty if there is none.

    vLLM takes long to import, so the names are read off its source: the literal ``CacheDType``.
    """
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        return ()
    source = (Path(spec.origin).parent / "config" / "cache.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CacheDType":
            names = {constant.value for constant in ast.walk(node.value) if isinstance(constant, ast.Constant)}
            return tuple(name for name in CACHE_TYPES if name in names)
    return ()


def entry_bytes(shape: Shape, dtype: str, cache_type: str) -> int:
    """Bytes of one (key, value) pair in vLLM's own cache, summed over layers and KV heads, scales included.

    Args:
        shape: The model.
        dtype: Its own type.
        cache_type: One of `CACHE_TYPES`.
    """
    plain_layers = 0
    if cache_type in _TURBOQUANT:
        plain_layers = 2 * min(_PLAIN_ENDS, shape.layers // 2)
    packed = _pair_bytes(cache_type, shape.head_dim) * (shape.layers - plain_layers)
    return shape.kv_heads * (packed + 2 * shape.head_dim * ITEM_BYTES[dtype] * plain_layers)


def _pair_bytes(cache_type: str, head_dim: int) -> int:
    """Bytes of one (key, value) pair of one head in one layer."""
    if cache_type in _FLOAT8:
        return 2 * head_dim
    if cache_type in _PER_TOKEN_HEAD:
        return 2 * (head_dim * _PER_TOKEN_HEAD[cache_type] // 8 + 4)  # and a scale in float32
    key_bits, value_bits = _TURBOQUANT[cache_type]
    key = head_dim if key_bits == 8 else ceil(head_dim * key_bits / 8) + 2  # and its norm in float16
    slot = key + ceil(head_dim * value_bits / 8) + 4  # and the value's scale and zero point in float16
    return slot + slot % 2
