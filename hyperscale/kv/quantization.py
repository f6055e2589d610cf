"""Stores keys and values in the model's own type, or quantises them when written and dequantises them when read.

Every vector, the key or the value of one entry in one head, is quantised by itself, so that an entry can be written,
overwritten, evicted and moved without looking at another. With x a vector of D numbers:

- ``fp8``: x / s as float8 e4m3, s = max|x| / 448;
- ``int8``: round(x / s), s = max|x| / 127;
- ``int4``: round((x - z) / s) in 0 … 15, two a byte, z = min x and s = (max x - min x) / 15 in each group of 32
  channels: group-wise asymmetric quantisation as in FlexGen (Sheng et al. 2023, arXiv 2303.06865, section 5).

A quantised vector is one run of bytes, its scales first and its codes after them: an entry is moved by one copy.

Scales and zero points are float16; 1 / 448, 1 / 127 and 1 / 15 are factors in float32. KIVI (Liu et al. 2024, arXiv
2402.02750) and KVQuant (Hooper et al. 2024, arXiv 2401.18079) share the scales of keys between the tokens of a channel
instead, which is what 2 bits need; but that takes groups of tokens that stay together, and under eviction per head none
do. Small groups and the zero point serve the same end here: a channel with an offset or with outliers makes only its
own group less precise.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from hyperscale.errors import EngineError
from hyperscale.kv.formats import AUTO, QUANTISED, SCALE_BYTES, groups, vector_bytes

_HALF = torch.finfo(torch.float16)
_SMALLEST = 2.0**-24  # that float16 can tell from 0


class Codec(ABC):
    """One way to store vectors.

    Attributes:
        stored: The type of the numbers that a stored vector consists of.
        width: How many of them it takes.
    """

    stored = torch.uint8

    def __init__(self, kv_dtype: str, head_dim: int, dtype: torch.dtype) -> None:
        self.head_dim, self.dtype = head_dim, dtype
        self.width = vector_bytes(kv_dtype, head_dim, dtype.itemsize) // self.stored.itemsize

    @abstractmethod
    def encode(self, vectors: Tensor) -> Tensor:
        """(…, head_dim) in the model's type to (…, width)."""

    @abstractmethod
    def decode(self, stored: Tensor, buffer: Tensor | None = None) -> Tensor:
        """(…, width) to (…, head_dim) in the model's type.

        ``buffer`` is memory to dequantise in, float32 and flat, and the result may lie in it: on the CPU, new memory
        costs more than all arithmetic here.
        """

    def _pack(self, scales: Tensor, codes: Tensor) -> Tensor:
        """Bytes of some vectors: scales (…, scales), as float16, then codes (…, code bytes)."""
        stored = torch.empty(*codes.shape[:-1], self.width, dtype=torch.uint8, device=codes.device)
        size = scales.shape[-1] * SCALE_BYTES
        stored[..., :size].view(torch.float16).copy_(scales)
        stored[..., size:] = codes.view(torch.uint8)
        return stored

    def _unpack(self, stored: Tensor, scales: int) -> tuple[Tensor, Tensor]:
        """The inverse of `_pack` with so many ``scales``: scales as float32, and codes as bytes."""
        size = scales * SCALE_BYTES
        return stored[..., :size].view(torch.float16).to(torch.float32), stored[..., size:]


class Plain(Codec):
    """The model's own type."""

    def __init__(self, kv_dtype: str, head_dim: int, dtype: torch.dtype) -> None:
        self.stored = dtype
        super().__init__(kv_dtype, head_dim, dtype)

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Codec.encode`."""
        return vectors

    def decode(self, stored: Tensor, buffer: Tensor | None = None) -> Tensor:
        """See `Codec.decode`; no copy."""
        return stored


class Fp8(Codec):
    """Float8 e4m3."""

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Codec.encode`."""
        scale, scaled = _scale_to(vectors, 448.0)
        return self._pack(scale, scaled.to(torch.float8_e4m3fn))

    def decode(self, stored: Tensor, buffer: Tensor | None = None) -> Tensor:
        """See `Codec.decode`."""
        scale, codes = self._unpack(stored, 1)
        # A float8 has the bits s eeee mmm, a float16 s eeeee mmmmmmmmmm. Moved to their places in float16 they mean the
        # number times 2^-8, because the exponents' biases are 7 and 15; that holds for subnormal numbers too. Being
        # sign-extended, the byte brings its sign twice; the mask clears the lower one. On the CPU this is ten times as
        # fast as torch's own conversion.
        bits = codes.view(torch.int8).to(torch.int16).bitwise_left_shift_(7).bitwise_and_(~0x4000)
        return _to_float32(bits.view(torch.float16), buffer).mul_(scale * 256).to(self.dtype)


class Int8(Codec):
    """Whole numbers of 8 bits."""

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Codec.encode`."""
        scale, scaled = _scale_to(vectors, 127.0)
        return self._pack(scale, scaled.round_().to(torch.int8))

    def decode(self, stored: Tensor, buffer: Tensor | None = None) -> Tensor:
        """See `Codec.decode`."""
        scale, codes = self._unpack(stored, 1)
        return _to_float32(codes.view(torch.int8), buffer).mul_(scale).to(self.dtype)


class Int4(Codec):
    """Whole numbers of 4 bits: the first half of the channels in the low bits, the second in the high ones."""

    def __init__(self, kv_dtype: str, head_dim: int, dtype: torch.dtype) -> None:
        if head_dim % 4:
            raise EngineError(f"a cache of int4 needs heads of a multiple of 4 channels, not {head_dim}: use int8")
        super().__init__(kv_dtype, head_dim, dtype)
        self._groups = groups(head_dim)

    def _in_groups(self, numbers: Tensor) -> Tensor:
        return numbers.view(*numbers.shape[:-1], self._groups, -1)

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Codec.encode`."""
        grouped = self._in_groups(vectors.to(torch.float32))
        low, high = grouped.aminmax(dim=-1, keepdim=True)
        zero, scale = _round_to_half(low), _round_to_half((high - low) * (1.0 / 15))
        codes = ((grouped - zero) / scale.clamp(min=_SMALLEST)).round_().clamp_(0, 15)
        # Channel i shares a byte with channel i + D / 2, so that both halves of a vector are unpacked by one operation.
        first, second = codes.flatten(-2).to(torch.uint8).chunk(2, dim=-1)
        return self._pack(torch.cat([scale, zero], -1).flatten(-2), first | (second << 4))

    def decode(self, stored: Tensor, buffer: Tensor | None = None) -> Tensor:
        """See `Codec.decode`."""
        scales, codes = self._unpack(stored, 2 * self._groups)
        # Low bits and high bits side by side restore the order of the channels: (…, 2, D / 2) flattens to (…, D).
        halves = torch.empty(*codes.shape[:-1], 2, codes.shape[-1], dtype=torch.uint8, device=codes.device)
        torch.bitwise_and(codes, 15, out=halves[..., 0, :])
        torch.bitwise_right_shift(codes, 4, out=halves[..., 1, :])
        grouped = self._in_groups(_to_float32(halves.flatten(-2), buffer))
        scale, zero = self._in_groups(scales).chunk(2, dim=-1)
        return grouped.mul_(scale).add_(zero).flatten(-2).to(self.dtype)


def make_codec(kv_dtype: str, head_dim: int, dtype: torch.dtype) -> Codec:
    """The codec of a format.

    Args:
        kv_dtype: "auto", "fp8", "int8" or "int4".
        head_dim: D.
        dtype: The model's own type.

    Raises:
        EngineError: There is no such format, or heads of this size cannot be stored in it.
    """
    kinds: dict[str, type[Codec]] = {AUTO: Plain, "fp8": Fp8, "int8": Int8, "int4": Int4}
    if kv_dtype not in kinds:
        raise EngineError(f"unknown type of the cache {kv_dtype!r}: use {AUTO}, {', '.join(QUANTISED)}")
    return kinds[kv_dtype](kv_dtype, head_dim, dtype)


def _to_float32(numbers: Tensor, buffer: Tensor | None) -> Tensor:
    """As float32, in the buffer if there is one."""
    if buffer is None:
        return numbers.to(torch.float32)
    return buffer[: numbers.numel()].view(numbers.shape).copy_(numbers)


def _round_to_half(numbers: Tensor) -> Tensor:
    """Rounded to float16, as float32."""
    return numbers.clamp(_HALF.min, _HALF.max).to(torch.float16).to(torch.float32)


def _scale_to(vectors: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """The scale that brings a vector's numbers into ±largest, (…, 1) float32, and the numbers so scaled."""
    vectors = vectors.to(torch.float32)
    # A factor, not a divisor: torch divides by a constant on the CPU and multiplies by its inverse on CUDA.
    scale = _round_to_half(vectors.abs().amax(dim=-1, keepdim=True) * (1.0 / largest))
    return scale, (vectors / scale.clamp(min=_SMALLEST)).clamp_(-largest, largest)
