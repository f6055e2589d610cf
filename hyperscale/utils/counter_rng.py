"""Computes random numbers each of which is a pure function of a key and counters.

A batch, a resume or another order of requests therefore cannot change a chain. The mixing function is SplitMix64
(Steele, Lea, Flood 2014), whose output passes BigCrush; the keys come from BLAKE2.
"""

from hashlib import blake2b

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same 64 bits, since torch has no arithmetic on unsigned 64-bit integers."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def key(*parts: str | int) -> int:
    """A signed 64-bit key of any tuple of strings and integers."""
    # The types take part, so that 1 and "1" differ; the separator occurs in no name.
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts arithmetically; the mask makes it logical


def mix(x: Tensor, counter: Tensor | int) -> Tensor:
    """SplitMix64's output number ``counter`` of the stream that starts at ``x``; int64, shapes broadcast."""
    z = x + (counter + 1) * _GAMMA if isinstance(counter, Tensor) else x + _signed((counter + 1) * _GAMMA % (1 << 64))
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def uniform(x: Tensor) -> Tensor:
    """Map mixed int64 bits to float64 in [0, 1), 53 bits each."""
    return _shift(x, 11).to(torch.float64) * 2.0**-53
