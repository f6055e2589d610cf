"""What quantised keys and values come back as, number by number, from the definitions in
`hyperscale.kv.quantization`."""

from math import gcd

import torch

_E4M3 = sorted(
    sign * magnitude
    for sign in (-1, 1)
    for magnitude in (
        *(m / 8 * 2.0**-6 for m in range(8)),  # subnormal
        *((1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)),
    )
)


def half(number):
    """Rounded to float16, as a Python float."""
    return float(torch.tensor(number, dtype=torch.float32).to(torch.float16))


def single(number):
    """Rounded to float32."""
    return float(torch.tensor(number, dtype=torch.float32))


def nearest(number, scale):
    """A number over a scale that is not 0, in float32 arithmetic."""
    return single(number / scale) if scale else 0.0


def vector(kind, numbers):
    """One key or value, a list of floats, as it is read again."""
    if kind == "auto":
        return numbers
    if kind == "int4":
        size = gcd(len(numbers), 32)
        return [x for start in range(0, len(numbers), size) for x in _group(numbers[start : start + size])]
    largest = {"fp8": 448, "int8": 127}[kind]
    scale = half(single(max(abs(x) for x in numbers) * single(1 / largest)))
    scaled = [max(-largest, min(largest, nearest(x, scale))) for x in numbers]
    if kind == "int8":
        return [single(round(x) * scale) for x in scaled]
    found = []
    for x in scaled:
        distance = min(abs(x - code) for code in _E4M3)
        ties = [code for code in _E4M3 if abs(x - code) == distance]
        found.append(single(min(ties, key=_odd) * scale))
    return found


def _odd(code):
    """Whether the last bit of a float8 is set: of two that are as near, the even one is taken."""
    return torch.tensor(code).to(torch.float8_e4m3fn).view(torch.uint8).item() & 1


def _group(numbers):
    zero = half(min(numbers))
    scale = half(single(single(max(numbers) - min(numbers)) * single(1 / 15)))
    codes = [max(0, min(15, round(nearest(single(x - zero), scale)))) for x in numbers]
    return [single(single(code * scale) + zero) for code in codes]


def every(kind, vectors):
    """A tensor (…, head_dim), each vector as it is read again."""
    flat = [vector(kind, each) for each in vectors.reshape(-1, vectors.shape[-1]).tolist()]
    return torch.tensor(flat, dtype=vectors.dtype).reshape(vectors.shape)
