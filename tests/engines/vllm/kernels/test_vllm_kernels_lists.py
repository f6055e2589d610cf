"""The GPU kernels on the engine's own tables, step by step beside the CPU: the same lists, pages and outputs."""

from types import SimpleNamespace

import pytest
import torch
from interpreted import DEVICE, MARKS
from plain_pages import PlainPages

from hyperscale.engines.vllm.kernels import decode_attention, decode_update
from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk import attention as chunk_attention
from hyperscale.engines.vllm.kernels.chunk import plan as chunk_plan
from hyperscale.engines.vllm.kernels.chunk import plan_storage
from hyperscale.engines.vllm.kernels.chunk import write as chunk_write
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.base import DecodeBatch, RequestChunk
from hyperscale.engines.vllm.worker.methods.dms import WorkerDMS
from hyperscale.engines.vllm.worker.quantised_pages import QuantisedPages
from hyperscale.engines.vllm.worker.reference_attention import ReferenceAttention
from hyperscale.engines.vllm.worker.tables import EntryTables

LAYERS, HEADS, GROUP, DIM, PAGE, SCALE = 2, 2, 2, 32, 16, 0.2
BLOCKS = torch.tensor([3, 9], dtype=torch.int32)  # first superblock of each request
pytestmark = MARKS


def worker(device, fp8):
    tables = EntryTables(
        layers=LAYERS, heads=HEADS, page_tokens=PAGE, blocks=20, slots=3, max_tokens=100, device=device
    )
    for block in BLOCKS.tolist():
        tables.set_superblocks(tables.open_slot(block, (50, 50, 0)), 0, range(block, block + 5))
    width, dtype = (DIM + 2, torch.uint8) if fp8 else (DIM, torch.float32)
    return tables, torch.zeros(20, LAYERS * HEADS, PAGE, 2 * width, dtype=dtype, device=device)


def begin_step(cache, at, count):
    """What the layers of a step share, as in the worker."""
    of, first, tokens = {"dtype": torch.int32, "device": DEVICE}, BLOCKS.to(DEVICE), 2 * count
    step = SimpleNamespace(pool=PagedCache.of(cache), starts=torch.full((2,), at, device=DEVICE), count=count)
    step.rows = DecodeRequests(first, step.starts)
    step.chunks = ChunkRequests(first, torch.tensor([0, count, tokens], **of), step.starts, count)
    step.storage = plan_storage.PlanStorage(LAYERS, HEADS, tokens, 2, DEVICE, counts=True)
    step.seen = torch.zeros(tokens, dtype=torch.int64, device=DEVICE)  # of all heads and layers
    step.counts = chunk_plan.ReadCounts(step.starts.int(), step.seen.expand(HEADS, -1))
    step.launches = StepLaunches()
    return step


def kernels(tables, step, layer, q, k, v, verdicts, window, later):
    """One layer's step of both requests; outputs, and how many entries each token saw in all heads."""
    q, k, v, verdicts = (x.to(DEVICE) for x in (q, k, v, verdicts))
    pool, out = step.pool, torch.empty_like(q)
    if step.count == 1:
        of = {"dtype": torch.int32, "device": DEVICE}
        live, table = torch.zeros(2, HEADS, **of), torch.zeros(2, HEADS, tables.page_table.shape[-1], **of)
        method = {"verdicts": verdicts, "window": window, "on_new": not later}
        decode_update.decode_update(tables, pool, layer, step.rows, k, v, live, table, **method)
        shape = (2, HEADS, GROUP, DIM)
        decode_attention.decode_attention(q.view(shape), pool, live, table, out.view(shape), SCALE, 100)
        return out.cpu(), live.sum(1).cpu()
    before, said = step.seen.clone(), chunk_plan.Verdicts(verdicts, window, later)
    chunks, shared = step.chunks, {"launches": step.launches}
    plan = chunk_plan.plan_chunks(tables, layer, chunks, said, step.storage, step.counts, **shared)
    check_latest(plan, layer, step.count)
    chunk_attention.chunk_attention(tables, pool, layer, chunks, plan, q, k, v, out, SCALE, **shared)
    chunk_write.store_survivors(tables, pool, layer, chunks, plan, k, v, **shared)
    return out.cpu(), (step.seen - before).cpu()


def check_latest(plan, layer, count):
    """The latest expiry of the passing tokens is the layer's own, of each request and head; chunks are one block."""
    assert count <= plan_storage.LATEST
    for request in range(2):
        part = slice(request * count, (request + 1) * count)
        block = request * count // plan_storage.LATEST + request
        for head in range(HEADS):
            passing = plan.passing[head, part][: count - int(plan.num_lasting[request, head])].long()
            expiries = plan.expiry[head, part][passing].tolist()
            assert int(plan.latest[layer, head, block]) == max(expiries, default=0)


def mechanism(attention, layer, at, count, q, k, v, verdicts):
    """The same on the CPU."""
    tables, grouped = attention.tables, q.view(-1, HEADS, GROUP, DIM)
    slots = tables.slot_of_block[BLOCKS.long()].long()
    if count == 1:
        rows = DecodeBatch(layer, slots, torch.full((2,), at), tables.lens[slots, layer].long(), verdicts)
        out = attention.decode(rows, grouped, k, v, SCALE)
        return out.flatten(1, 2), tables.lens[slots, layer].sum(1)
    outs, counts = [], []
    for slot, part in zip(slots.tolist(), (slice(0, count), slice(count, None)), strict=True):
        span = RequestChunk(layer, slot, at, at + count, verdicts[part])
        out, seen = attention.attend_chunk(span, grouped[part], k[part], v[part], SCALE)
        outs.append(out.flatten(1, 2))
        counts.append(seen)
    return torch.cat(outs), torch.cat(counts)


@pytest.mark.parametrize(("window", "fp8"), [(5, False), (0, False), (5, True)])
@pytest.mark.parametrize("later", [1, 0], ids=["on the token before", "on the token itself"])
def test_the_same_as_on_the_cpu(window, fp8, later):
    draw = torch.Generator().manual_seed(4)
    mine, cache = worker(DEVICE, fp8)
    theirs, other = worker("cpu", fp8)
    pages = QuantisedPages(other, "fp8", DIM, torch.float32) if fp8 else PlainPages(other)
    options = Options(method="dms", cr=4.0, window=window, decision_offset=later)
    attention, at = ReferenceAttention(theirs, WorkerDMS(theirs, options), pages), 0
    for count in (20, 1, 1, 1, 13, *[1] * 8):
        step = begin_step(cache, at, count)
        for layer in range(LAYERS):
            q = torch.randn(2 * count, HEADS * GROUP, DIM, generator=draw)
            k, v = torch.randn(2, 2 * count, HEADS, DIM, generator=draw)
            # At first a layer evicts nothing: then its chunk has no passing token, where the other layer's has many.
            share = 0.7 if layer or at else 0.0
            verdicts = torch.rand(2 * count, HEADS, generator=draw) < share
            out, seen = kernels(mine, step, layer, q, k, v, verdicts, window, later)
            expected, counts = mechanism(attention, layer, at, count, q, k, v, verdicts)
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(seen.long(), counts.long())
        at += count
        for name in ("lens", "num_pages", "pages_used", "num_superblocks", "slot_of_block"):
            assert torch.equal(getattr(mine, name).cpu(), getattr(theirs, name)), name
    assert int(mine.lens.sum()) < 2 * LAYERS * HEADS * at
