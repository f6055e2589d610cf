# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: ANN001, ANN202
"""Chooses the entry that each list of a layer gives up when the next token comes, by the attention of this step.

It is `hyperscale.methods.core.victim.VictimState.observe` on what is kept by slot, in one kernel: attention weights
from the scores that `decode_attention` leaves, their sum over query heads, the sum over steps where the method has one,
and the least of the entries that may leave.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import DecodeRequests, KernelTables

TILE = 2048  # numbers that a program holds at once


@dataclass(frozen=True)
class VictimTables:
    """What a method that chooses victims keeps, by slot; changed.

    Attributes:
        victim: (layers, slots, heads) int64, the place that each list gives up.
        position: (layers, slots, heads, capacity) int32, the position of the entry in each place.
        score: As position, float32, the weights that each entry has had in all; None if the step's alone count.
        last_queries: (slots, layers, query heads, head_dim), the query of a prompt's last token if it came alone.
    """

    victim: Tensor
    position: Tensor
    score: Tensor | None
    last_queries: Tensor


@dataclass(frozen=True)
class VictimStep:
    """What is the same in all layers of a step; (requests,) int64 each.

    Attributes:
        limits: See `Victims`.
        first: How many of the first entries are pinned.
        oldest_safe: The least position whose entry may not leave.
        in_prompt: 1 where the token is still the prompt's, of whose entries nothing is kept yet; 0 elsewhere.
    """

    limits: Tensor
    first: Tensor
    oldest_safe: Tensor
    in_prompt: Tensor


@triton.jit(do_not_specialize=["layer"])
def _victims_kernel(
    # the step's attention
    scores,
    log_sums,
    width,
    queries,
    query_stride,
    # the requests
    first_blocks,
    first_stride,
    positions,
    pinned,
    oldest_safe,
    in_prompt,
    # the tables
    slot_of_block,
    lens,
    newest_places,
    victim_out,
    position,
    entry_score,
    capacity,
    last_queries,
    # numbers
    layer,
    layers,
    heads,
    slots,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    ADDS_UP: tl.constexpr,
):
    # Grid (requests, heads / SHARE): a program chooses for SHARE heads, which share a verdict if they are several.
    request, first_head = tl.program_id(0), tl.program_id(1) * SHARE
    slot = tl.load(slot_of_block + tl.load(first_blocks + request * first_stride)).to(tl.int64)
    if slot == 0:  # padding
        return
    if tl.load(in_prompt + request) != 0:  # what stays of the prompt is decided when it ends, by its last query
        g, d = tl.arange(0, ROWS), tl.arange(0, D)
        for h in range(0, SHARE):
            head = ((first_head + h) * G + g) * D
            at = head[:, None] + d[None, :]
            q = tl.load(queries + request.to(tl.int64) * query_stride + at, mask=(g < G)[:, None])
            tl.store(last_queries + (slot * layers + layer) * heads * G * D + at, q, mask=(g < G)[:, None])
        return
    query = tl.load(positions + request).to(tl.int32)
    pinned_entries = tl.load(pinned + request)
    safe = tl.load(oldest_safe + request)
    head = first_head + tl.arange(0, HEADS)
    real = tl.arange(0, HEADS) < SHARE
    list_ = (slot * layers + layer) * heads + head
    row = (layer * slots + slot) * heads + head
    length = tl.load(lens + list_, mask=real, other=0)
    newest = tl.load(newest_places + list_, mask=real, other=-1)  # where this step's token was stored
    batch_list = request.to(tl.int64) * heads + head
    best = tl.full((HEADS,), float("inf"), tl.float32)
    victim = tl.zeros((HEADS,), tl.int32)
    for begin in range(0, tl.max(length, 0), BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = (index[None, :] < length[:, None]) & (index < capacity)[None, :]
        worth = tl.zeros((HEADS, BLOCK), tl.float32)
        for g in tl.static_range(G):
            query_head = batch_list * G + g
            log_sum = tl.load(log_sums + query_head, mask=real, other=0.0)
            has_score = inside & (index < width)[None, :]
            score = tl.load(scores + query_head[:, None] * width + index[None, :], mask=has_score, other=float("-inf"))
            worth += tl.exp2(score - log_sum[:, None])
        if SHARE > 1:
            worth = tl.zeros((HEADS, BLOCK), tl.float32) + tl.sum(worth, 0)[None, :]
        at = row[:, None] * capacity + index[None, :]
        is_new = index[None, :] == newest[:, None]
        if ADDS_UP:
            # The sum of the new entry begins with this step; what lies in its place is another's.
            worth += tl.where(is_new, 0.0, tl.load(entry_score + at, mask=inside, other=0.0))
            tl.store(entry_score + at, worth, mask=inside)
        stored_at = tl.where(is_new, query, tl.load(position + at, mask=inside, other=0))
        tl.store(position + at, stored_at, mask=inside & is_new)
        may_leave = inside & (index[None, :] >= pinned_entries) & (stored_at < safe)
        worth = tl.where(may_leave, worth, float("inf"))
        # Among equals the first place, within the block and, as only less is better, between blocks.
        least = tl.min(worth, 1)
        place = tl.min(tl.where(worth == least[:, None], index[None, :], capacity), 1)
        victim = tl.where(least < best, place, victim)
        best = tl.minimum(best, least)
    tl.store(victim_out + row, victim.to(tl.int64), mask=real)


def choose_victims(
    tables: KernelTables,
    layer: int,
    requests: DecodeRequests,
    step: VictimStep,
    kept: VictimTables,
    queries: Tensor,
    scores: Tensor,
    log_sums: Tensor,
    share: bool,
) -> None:
    """Enter the step's token into what is kept of each list, and choose what the list gives up next.

    Runs after `decode_update` and `decode_attention` of the layer.

    Args:
        tables: The worker's tables.
        layer: The layer.
        requests: The requests; those of block 0 are left alone.
        step: What the step says of them.
        kept: What the method keeps; changed.
        queries: (requests, heads, group, head_dim), requests may be strided.
        scores: (requests, heads, group, width) float32, contiguous, see `decode_attention`.
        log_sums: (requests, heads, group) float32, contiguous, likewise.
        share: Whether all heads share a verdict, by the sum of their weights.
    """
    count, heads, group, dim = queries.shape
    if not count:
        return
    shared = heads if share else 1
    padded_heads = triton.next_power_of_2(shared)
    _victims_kernel[(count, heads // shared)](
        scores,
        log_sums,
        scores.shape[-1],
        queries,
        queries.stride(0),
        requests.first_blocks,
        requests.first_blocks.stride(0),
        requests.positions,
        step.first,
        step.oldest_safe,
        step.in_prompt,
        tables.slot_of_block,
        tables.lens,
        tables.newest,
        kept.victim,
        kept.position,
        kept.position if kept.score is None else kept.score,
        kept.position.shape[-1],
        kept.last_queries,
        layer,
        tables.lens.shape[1],
        heads,
        tables.lens.shape[0],
        D=dim,
        G=group,
        ROWS=triton.next_power_of_2(group),
        SHARE=shared,
        HEADS=padded_heads,
        BLOCK=max(TILE // padded_heads, 16),
        ADDS_UP=kept.score is not None,
        num_warps=8,
    )
