"""Attention over packed documents by the project's own kernels: one pass forward, two backward, gradients included.

The kernels are `hyperscale.retrofit.attention.kernels`. To a compiler each direction is one operation, whose inside it
leaves alone; Triton is imported when one runs.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Largest head dimension; those that are no power of two are padded inside the kernels.
LARGEST_DIM = 256
#: Bytes of shared memory that the largest of the launches below takes.
SHARED_MEMORY = 161 * 1024
#: Programs that a launch over keys should have: three for each multiprocessor of a large GPU, as their lengths differ.
_PROGRAMS = 384


class Launch(NamedTuple):
    """How a kernel is cut and launched.

    Attributes:
        queries: Queries of a block.
        keys: Keys of a block.
        warps: Warps of a program.
        stages: Blocks that are loaded ahead, and the one in use.
        registers: Most of a thread, so that more programs share a multiprocessor; what the compiler takes if None.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    registers: int | None = None


class Launches(NamedTuple):
    """The launches of the three kernels.

    Attributes:
        forward: Over queries, forward.
        query: Over queries, backward.
        key: Over keys, backward.
    """

    forward: Launch
    query: Launch
    key: Launch


#: By whether numbers have 16 bits, and the head dimension as a power of two, at least 64; for Hopper.
LAUNCHES = {
    (True, 64): Launches(Launch(128, 64, 8, 3, 128), Launch(64, 32, 4, 3, 128), Launch(32, 64, 4, 3, 168)),
    (True, 128): Launches(Launch(128, 64, 8, 3), Launch(128, 64, 8, 3), Launch(64, 128, 8, 2)),
    (True, 256): Launches(Launch(64, 32, 4, 3), Launch(64, 32, 4, 2), Launch(32, 64, 8, 2)),
    (False, 64): Launches(*(Launch(32, 32, 4, 2),) * 3),
    (False, 128): Launches(*(Launch(32, 32, 4, 2),) * 3),
    (False, 256): Launches(*(Launch(16, 16, 4, 1),) * 3),
}


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    window: int,
    scale: float,
) -> Tensor:
    """Attention of each token to those before it in its document, with a bias on keys beyond a window.

    Args:
        q: (batch, heads, sequence, dim).
        k: (batch, kv_heads, sequence, dim), of the same type.
        v: As k.
        bias: (batch, kv_heads, sequence) float32, added to the scores of a key that is older than the window.
        starts: (batch, sequence) int32, where each token's document begins.
        ends: (batch, sequence) int32, one past where it ends.
        window: Greatest age at which there is no bias.
        scale: Factor on the scores.

    Returns:
        As q; in memory, heads lie within tokens.
    """
    out: Tensor = _attend(q, k, v, bias, starts, ends, window, scale)[0]
    return out


def fits_kernels(head_dim: int, shared: int) -> bool:
    """Whether the kernels run.

    Args:
        head_dim: Numbers of one head's key.
        shared: Bytes of shared memory that a block of the GPU may have.
    """
    return head_dim <= LARGEST_DIM and shared >= SHARED_MEMORY


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a block of a CUDA device may have; 0 where torch does not tell."""
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0))


def launches_for(q: Tensor) -> Launches:
    """The launches for queries of this type and size."""
    return LAUNCHES[q.element_size() == 2, max(64, _power_of_two(q.shape[-1]))]


def _power_of_two(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())  # Triton multiplies no smaller matrices


def _like(tensor: Tensor) -> Tensor:
    """An empty tensor of this shape and type, heads within tokens."""
    return tensor.new_empty(tensor.transpose(1, 2).shape).transpose(1, 2)


def _strided(tensor: Tensor) -> Tensor:
    """The tensor; a copy if the numbers of a head are apart."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _in_log_2(bias: Tensor | None, other: Tensor) -> Tensor:
    """The bias in the kernels' units, once for all programs; without one, something to point at."""
    return other if bias is None else bias.contiguous() * math.log2(math.e)


def _parts(group: int, programs: int) -> int:
    """Parts of a group of query heads that different programs take, so that there are enough of them."""
    return next((n for n in range(1, group) if group % n == 0 and n * programs >= _PROGRAMS), group)


def _options(q: Tensor, launch: Launch, bias: Tensor | None) -> dict[str, object]:
    """Arguments by name that all kernels take."""
    return {
        "M": launch.queries,
        "N": launch.keys,
        "D": _power_of_two(q.shape[-1]),
        "DIM": q.shape[-1],
        "PRECISION": "tf32",  # of float32, which no training on CUDA multiplies
        "BIASED": bias is not None,
        "num_warps": launch.warps,
        "num_stages": launch.stages,
        "maxnreg": launch.registers,
    }


@torch.library.custom_op("hyperscale::packed_attention", mutates_args=())
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The outputs, and the sums of weights by their logarithm in base 2, (batch, heads, sequence)."""
    from hyperscale.retrofit.attention.kernels import _forward_kernel

    q, k, v = _strided(q), _strided(k), _strided(v)
    batch, heads, length, _ = q.shape
    out = _like(q)
    sums = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    launch = launches_for(q).forward
    _forward_kernel[batch * heads, -(-length // launch.queries)](
        q, k, v, _in_log_2(bias, sums), starts, out, sums,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        heads, heads // k.shape[1], length, window, scale, **_options(q, launch, bias),
    )  # fmt: skip
    return out, sums


@_attend.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return _like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("hyperscale::packed_attention_backward", mutates_args=())
def _attend_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    out: Tensor,
    sums: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v and the bias; the last has no elements if there is no bias."""
    from hyperscale.retrofit.attention.kernels import _key_gradient_kernel, _query_gradient_kernel

    q, k, v, d_out = _strided(q), _strided(k), _strided(v), _strided(d_out)
    (batch, heads, length, _), kv_heads = q.shape, k.shape[1]
    launches = launches_for(q)
    dq, deltas = _like(q), torch.empty_like(sums)
    own_bias = _in_log_2(bias, sums)
    launch = launches.query
    _query_gradient_kernel[batch * heads, -(-length // launch.queries)](
        q, k, v, own_bias, starts, out, sums, d_out, dq, deltas,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], *d_out.stride()[:3], *dq.stride()[:3],
        heads, heads // kv_heads, length, window, scale, **_options(q, launch, bias),
    )  # fmt: skip
    launch = launches.key
    blocks = -(-length // launch.keys)
    parts = _parts(heads // kv_heads, batch * kv_heads * blocks)
    # Several parts of a group are added up afterwards, in float32.
    dtype = k.dtype if parts == 1 else torch.float32
    parts_k, parts_v = (k.new_empty(parts, batch, length, kv_heads, k.shape[3], dtype=dtype) for _ in range(2))
    dk, dv = parts_k.transpose(2, 3), parts_v.transpose(2, 3)
    d_bias = sums.new_empty((parts, batch, kv_heads, length) if bias is not None else (parts, 0))
    _key_gradient_kernel[batch * kv_heads * parts, blocks](
        q, k, v, own_bias, ends, sums, d_out, deltas, dk, dv, d_bias,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *d_out.stride()[:3], *dk.stride()[:4], *dv.stride()[:4],
        batch, heads, kv_heads, parts, length, window, scale, **_options(q, launch, bias),
    )  # fmt: skip
    if parts == 1:
        return dq, dk[0], dv[0], d_bias[0]
    # Heads within tokens, as `_like` has them: compiled layers rely on it.
    dk, dv = (part.sum(0).to(k.dtype).transpose(1, 2) for part in (parts_k, parts_v))
    return dq, dk, dv, d_bias.sum(0)


@_attend_backward.register_fake
def _(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ends: Tensor,
    out: Tensor,
    sums: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like(q), _like(k), _like(v), sums.new_empty((0,) if bias is None else bias.shape)


def _save(ctx: object, inputs: tuple[object, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, starts, ends, ctx.window, ctx.scale = inputs  # type: ignore[attr-defined]
    ctx.mark_non_differentiable(output[1])  # type: ignore[attr-defined]
    ctx.save_for_backward(q, k, v, bias, starts, ends, *output)  # type: ignore[attr-defined]


def _differentiate(ctx: object, d_out: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # type: ignore[attr-defined]
    dq, dk, dv, d_bias = _attend_backward(d_out, *tensors, ctx.window, ctx.scale)  # type: ignore[attr-defined]
    return dq, dk, dv, None if tensors[3] is None else d_bias, None, None, None, None


_attend.register_autograd(_differentiate, setup_context=_save)
