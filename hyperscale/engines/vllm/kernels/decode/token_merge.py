# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Merges the tokens of decode steps into the means of their lists, before RoPE: DMC's rule in one kernel."""

import triton
import triton.language as tl
from torch import Tensor, finfo, float32


@triton.jit
def _token_merge_kernel(
    queries,
    query_stride,
    keys,
    values,
    logits,
    positions,
    slots,
    sums,
    heads,
    scale,
    offset,
    least,
    GROUP: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    D: tl.constexpr,
):
    # Grid (requests, heads): a program owns one list, but those that pad a batch, which share slot 0.
    request, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + request)
    d = tl.arange(0, D)
    at = (request * heads + head) * D
    key, value = tl.load(keys + at + d).to(tl.float32), tl.load(values + at + d).to(tl.float32)

    # The key's last neuron decides, those of its queries weigh.
    logit = tl.load(keys + at + D - 1).to(tl.float32) * scale - offset
    merges = (logit > 0) & (tl.load(positions + request) > 0)
    member = tl.arange(0, GROUP_SIZE)
    neurons = tl.load(
        queries + request * query_stride + (head * GROUP + member) * D + D - 1, mask=member < GROUP, other=0.0
    )
    weight = tl.sigmoid(tl.sum(neurons.to(tl.float32), 0) / GROUP * scale + offset) + least

    # A list's sums: of weighted keys, of weighted values, of weights.
    row = sums + (slot * heads + head) * (2 * D + 1)
    key = key * weight + tl.where(merges, tl.load(row + d), 0.0)
    value = value * weight + tl.where(merges, tl.load(row + D + d), 0.0)
    weight += tl.where(merges, tl.load(row + 2 * D), 0.0)
    tl.store(row + d, key)
    tl.store(row + D + d, value)
    tl.store(row + 2 * D, weight)
    tl.store(keys + at + d, (key / weight).to(keys.dtype.element_ty))
    tl.store(values + at + d, (value / weight).to(values.dtype.element_ty))
    tl.store(logits + request * heads + head, tl.where(merges, 1.0, -1.0))


def merge_tokens(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    logits: Tensor,
    positions: Tensor,
    slots: Tensor,
    sums: Tensor,
    scale: float,
    offset: float,
) -> None:
    """Merge one token of each request: `WorkerDMC.merge` of a step without chunks.

    Args:
        queries: (requests, query heads, head_dim), before RoPE; rows may be strided.
        keys: (requests, heads, head_dim), contiguous; head_dim a power of two. Written: the means.
        values: As keys.
        logits: (requests, heads) float32, contiguous; written: 1 where a token is merged, else -1.
        positions: (requests,), of the tokens.
        slots: (requests,) int64; 0 is padding.
        sums: (slots, heads, 2 head_dim + 1) float32, contiguous; changed.
        scale: Factor on the neurons.
        offset: Subtracted from a decision's logit, added to a weight's.
    """
    count, heads, dim = keys.shape
    if not count:
        return
    group = queries.shape[1] // heads
    _token_merge_kernel[(count, heads)](
        queries,
        queries.stride(0),
        keys,
        values,
        logits,
        positions,
        slots,
        sums,
        heads,
        scale,
        offset,
        finfo(float32).eps,
        GROUP=group,
        GROUP_SIZE=triton.next_power_of_2(group),
        D=dim,
        num_warps=1,  # what one thread reads another overwrites, in order only within a warp
    )
