"""Formats of stored keys and values, and the bytes they take; imports no torch, because planning needs it too."""

from math import gcd

AUTO = "auto"
"""The model's own type."""
QUANTISED = ("fp8", "int8", "int4")
SCALE_BYTES = 2  # float16
GROUP = 32  # channels that share a scale and a zero point at 4 bits


def groups(head_dim: int) -> int:
    """Groups of channels of a key or value at 4 bits."""
    return head_dim // gcd(head_dim, GROUP)


def vector_bytes(kv_dtype: str, head_dim: int, item: int) -> int:
    """Bytes of one key or value of one head, scales and zero points included.

    Args:
        kv_dtype: `AUTO` or one of `QUANTISED`.
        head_dim: D.
        item: Bytes of a number of the model's own type.
    """
    if kv_dtype == AUTO:
        return head_dim * item
    if kv_dtype == "int4":
        return head_dim // 2 + 2 * SCALE_BYTES * groups(head_dim)
    assert kv_dtype in QUANTISED, f"{kv_dtype} is another engine's, see `EngineProvider.entry_bytes`"
    return head_dim + SCALE_BYTES
