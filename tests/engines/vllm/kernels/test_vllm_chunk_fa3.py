"""Dense chunks through FlashAttention 3: on Hopper as it is, elsewhere what it is handed, read as it documents."""

import pytest
import torch
from documented_flash import attend_as_documented
from interpreted import CUDA, DEVICE, MARKS
from ragged_world import World

from hyperscale.engines.vllm.kernels import decode_fa3
from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk import append as chunk_append
from hyperscale.engines.vllm.kernels.chunk import fa3 as chunk_fa3
from hyperscale.engines.vllm.worker.cache_rows import CacheRows
from hyperscale.engines.vllm.worker.methods.queries.received_attention import ReceivedAttention

pytestmark = MARKS
SCALE = 0.2


def ints(values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def process(world, members, sizes, base=0):
    """A step with chunks of some requests (-1: padding) behind ``base`` decode steps; checks what they attend to."""
    real = [max(r, 0) for r in members]
    spans = [(world.done[r, 0], world.done[r, 0] + n) for r, n in zip(real, sizes, strict=True)]
    starts = [base]
    for n in sizes:
        starts.append(starts[-1] + n)
    chunks = ChunkRequests(
        world.first_blocks(members), ints(starts), torch.tensor([a for a, _ in spans], device=DEVICE), max(sizes)
    )
    slots = torch.tensor([world.slots[r] if r >= 0 else 0 for r in members], device=DEVICE)
    ends, begins = [b for _, b in spans], all(a == 0 for a, _ in spans)
    arguments = (chunks.offsets, starts, slots, ints(ends), world.heads, max(ends))
    sequences = chunk_fa3.make_sequences(*arguments, begins=begins)
    assert (sequences.lists is None) == begins
    chunk_append.make_room(world.tables, chunks, slots)
    for layer in range(world.layers):
        inputs = [world.gather(part, real, spans, layer) for part in (world.queries, world.keys, world.values)]
        inputs = [torch.cat([part.new_full((base, *part.shape[1:]), float("nan")), part]) for part in inputs]
        attend(world, members, sizes, spans, layer, base, chunks, sequences, *inputs)
    for r, end in zip(members, ends, strict=True):
        world.done |= {(r, layer): end for layer in range(world.layers) if r >= 0}
    world.check_lists()
    weigh_alone(world, members, spans)
    check_received(world, members, spans)


def attend(world, members, sizes, spans, layer, base, chunks, sequences, queries, keys, values):
    cache, heads = PagedCache.of(world.cache), world.heads
    chunk_append.append_chunks(world.tables, cache, layer, chunks, keys, values)
    out = torch.zeros_like(queries)
    inputs = (sequences, cache, world.tables.page_table[:, layer], queries, keys, values, out, SCALE)
    if CUDA:
        log_sums = chunk_fa3.chunk_attention(*inputs)
    else:
        kwargs = chunk_fa3.arguments(*inputs)
        log_sums = chunk_fa3.strides_of(attend_as_documented(**kwargs), sequences, heads)
        if sequences.lists is not None:
            chunk_fa3.store_by_token(kwargs["out"], out[base:], heads)
    world.received.add_chunks(cache, layer, chunks, queries, log_sums, base, 200, SCALE)
    assert not bool(out[:base].any())
    for r, (a, b), part in zip(members, spans, out[base:].split(sizes), strict=True):
        if r >= 0:
            wanted = world.attention(r, a, b, layer, SCALE, exact=b - a)
            error = (part.double().cpu() - wanted).norm() / wanted.norm()
            assert error < (2e-2 if CUDA else 1e-5)


def weigh_alone(world, members, spans):
    """Tokens that came alone, which the kernel leaves out."""
    alone = [(r, b) for r, (a, b) in zip(members, spans, strict=True) if r >= 0 and b - a == 1]
    shape = (len(world.tables.lens), world.layers, world.heads * world.group, world.dim)
    queries = torch.full(shape, float("nan"), dtype=world.dtype, device=DEVICE)
    for r, end in alone:
        queries[world.slots[r]] = world.queries[r][end - 1]
    rows = CacheRows(world.tables, PagedCache.of(world.cache), world.dtype)
    lists = [(world.slots[r], end) for r, end in alone]
    world.received.add_alone(lists, queries, rows, world.dim * world.dtype.itemsize, SCALE)


def check_received(world, members, spans):
    """What each key of a prompt has received from all queries."""
    for r, (a, b) in zip(members, spans, strict=True):
        for layer in range(world.layers if r >= 0 else 0):
            q = world.queries[r][a:b, layer].double().cpu().unflatten(1, (world.heads, world.group))
            hidden = ~world.visible(r, a, b, layer)[:, None]
            # The queries attended to the chunk's keys as they are; what keys receive is weighed as they are stored. A
            # token that came alone attended to what was stored.
            exact, stored = (
                (torch.einsum("qhgd,khd->hgqk", q, keys.double().cpu()) * SCALE).masked_fill(hidden, float("-inf"))
                for keys in (world.keys[r][:b, layer], world.stored_as(world.keys[r][:b, layer]))
            )
            log_sum = (exact if b - a > 1 else stored).logsumexp(-1, keepdim=True)
            world.weighed[r, layer][:, :b] += (stored - log_sum).exp().sum((1, 2))
        for layer in range(world.layers if r >= 0 else 0):
            found = world.received.view(
                world.slots[r], range(layer, layer + 1), world.keys[r][None, :, 0], SCALE, 1
            ).received()[0]
            error = (found.double().cpu() - world.weighed[r, layer]).norm() / world.weighed[r, layer].norm().clamp(
                min=1
            )
            assert error < (2e-2 if CUDA else 1e-5)


@pytest.mark.skipif(CUDA and not decode_fa3.available(), reason="needs FlashAttention 3")
@pytest.mark.parametrize("fp8", [False, True])
def test_chunks_of_dense_prompts(fp8):
    dtype = torch.bfloat16 if CUDA else torch.float32
    shape = {"layers": 2, "heads": 2, "group": 3, "dim": 64, "page": 32, "tokens": 200}
    world = World(requests=3, rate=0.0, dtype=dtype, device=DEVICE, fp8=fp8, **shape)
    tables = world.tables
    tables.layers, tables.heads = world.layers, world.heads
    tables.request_params = torch.full((len(tables.lens), 3), 200, dtype=torch.int64, device=DEVICE)
    world.received = ReceivedAttention(tables)
    for slot in world.slots:
        world.received.open(slot, 200)
    world.received.flush()
    world.weighed = {(r, layer): torch.zeros(2, 200).double() for r in range(3) for layer in range(2)}
    process(world, [0, 2], [40, 1])
    if fp8:  # what goes on reads the cache, and FlashAttention cannot
        process(world, [1], [33], base=2)
        return
    process(world, [1, -1], [33, 9], base=2)  # a row of a warm-up
    process(world, [2, 0, 1], [63, 7, 90], base=1)  # all go on, one of them to the end of a page
    process(world, [0, 2], [3, 70])
