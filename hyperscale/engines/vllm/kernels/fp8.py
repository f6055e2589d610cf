# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN201
"""Keys and values in float8 e4m3: quantised where they are written, dequantised where they are read.

The format is that of `hyperscale.kv.quantization.Fp8`, to the bit: every vector has a scale of its own, max|x| / 448 in
float16. An entry's two scales, its key's in front, lie behind the entries of its page and are loaded as one word of 32
bits, the least that an asynchronous copy takes.
"""

import triton
import triton.language as tl


@triton.jit
def quantise(vectors):
    """(M, D) numbers to their e4m3 codes, (M, D) uint8, and the bits of their scales as float16, (M,) int32."""
    numbers = vectors.to(tl.float32)
    largest = tl.max(tl.abs(numbers), 1) * (1.0 / 448.0)
    half = tl.minimum(largest, 65504.0).to(tl.float16)
    # 2^-24 is the least that float16 can tell from 0. The division is IEEE's, as torch's is.
    divisor = tl.maximum(half.to(tl.float32), 5.9604644775390625e-08)
    scaled = tl.div_rn(numbers, tl.broadcast_to(divisor[:, None], numbers.shape))
    magnitude = tl.minimum(tl.abs(scaled), 448.0)
    # To the nearest code, halfway to the even one, by integers: triton's interpreter rounds its own conversion wrongly.
    bits = magnitude.to(tl.int32, bitcast=True)
    # A float32 has the bits s eeeeeeee m(23), its exponent 120 above e4m3's. A carry goes into the exponent.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 codes are multiples of 2^-9, which is what float32 can tell apart from 2^14 on.
    subnormal = (magnitude + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    sign = (scaled.to(tl.int32, bitcast=True) >> 24) & 0x80
    codes = sign | tl.where(magnitude < 0.015625, subnormal, normal)
    codes = tl.where(numbers != numbers, 0x7F, codes)
    return codes.to(tl.uint8), half.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF


@triton.jit
def dequantise(codes, scale_bits, DTYPE: tl.constexpr):
    """(M, D) codes in uint8 to numbers; ``scale_bits`` (M,) int32 has their scales in its lower half."""
    scale = scale_bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return (codes.to(tl.float8e4nv, bitcast=True).to(tl.float32) * scale[:, None]).to(DTYPE)


@triton.jit
def load_entries(
    keys, values, scales, page, place, inside, page_stride, D: tl.constexpr, DTYPE: tl.constexpr, FP8: tl.constexpr
):
    """Keys and values (M, D) of the entries at ``place`` of ``page``, (M,) int64 each; zeros where not ``inside``."""
    d = tl.arange(0, D)
    at = (page * page_stride + place * D)[:, None] + d[None, :]
    k = tl.load(keys + at, mask=inside[:, None], other=0)
    v = tl.load(values + at, mask=inside[:, None], other=0)
    if FP8:
        # Scales are numbered in words of 4 bytes, codes in bytes.
        both = tl.load(scales + page * (page_stride // 4) + place, mask=inside, other=0)
        k = dequantise(k, both, DTYPE)
        v = dequantise(v, both >> 16, DTYPE)
    return k, v


@triton.jit
def load_keys(keys, scales, page, place, inside, page_stride, D: tl.constexpr, DTYPE: tl.constexpr, FP8: tl.constexpr):
    """As `load_entries`, of the keys alone."""
    d = tl.arange(0, D)
    k = tl.load(keys + (page * page_stride + place * D)[:, None] + d[None, :], mask=inside[:, None], other=0)
    if FP8:
        k = dequantise(k, tl.load(scales + page * (page_stride // 4) + place, mask=inside, other=0), DTYPE)
    return k


@triton.jit
def store_entries(k, v, keys, values, scales, page, place, inside, page_stride, D: tl.constexpr, FP8: tl.constexpr):
    """The inverse of `load_entries`, where ``inside``."""
    d = tl.arange(0, D)
    at = (page * page_stride + place * D)[:, None] + d[None, :]
    if FP8:
        k, key_scale = quantise(k)
        v, value_scale = quantise(v)
        tl.store(scales + page * (page_stride // 4) + place, key_scale | (value_scale << 16), mask=inside)
    tl.store(keys + at, k, mask=inside[:, None])
    tl.store(values + at, v, mask=inside[:, None])
