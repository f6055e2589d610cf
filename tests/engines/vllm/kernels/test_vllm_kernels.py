"""The GPU kernels of the vLLM engine against the slow, obvious reference; without a GPU in triton's interpreter."""

import os
import random
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tiny
import torch
from interpreted import CUDA, DEVICE, MARKS
from ragged_world import World
from repository import ROOT

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch import forward_pass
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.vllm.kernels import decode_attention, decode_fa3, decode_update
from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests, PagedCache
from hyperscale.engines.vllm.kernels.chunk import attention as chunk_attention
from hyperscale.engines.vllm.kernels.chunk import plan as chunk_plan
from hyperscale.engines.vllm.kernels.chunk import write as chunk_write
from hyperscale.methods.core.dms_gate import GateConfig, alpha_logits
from hyperscale.retrofit.attention.fused import SHARED_MEMORY

pytestmark = MARKS
SCALE = 0.2
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def close(found, expected, dtype):
    """Relative error in the Frobenius norm, by dtype; NaN never passes."""
    found = found.double().cpu()
    assert float((found - expected).norm() / expected.norm()) < TOLERANCE[dtype]


def ints(values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def decode(world, members, layer, window=None):
    """One token of each of ``members`` (-1: padding); checks attention and counts."""
    window = world.window if window is None else window
    pool = PagedCache.of(world.cache)
    real = [r if r >= 0 else 0 for r in members]
    at = [world.done[r, layer] if r >= 0 else 0 for r in members]
    spans = [(a, a + 1) for a in at]
    rows = DecodeRequests(world.first_blocks(members), torch.tensor(at, device=DEVICE))
    tensors = [world.gather(x, real, spans, layer) for x in (world.queries, world.keys, world.values)]
    method = {}
    if world.window is not None:
        method = {"verdicts": world.verdicts(real, spans, layer), "window": window}
    else:
        assert world.heads == 1, "a method that knows a token's expiry at once gives one for all heads"
        method = {"new_expiry": ints([int(world.expiry[r][a, layer, 0]) for r, a in zip(real, at, strict=True)])}
    wide = torch.full((len(members), world.layers, world.heads), -3, dtype=torch.int32, device=DEVICE)
    live = wide[:, layer]
    table = torch.full((len(members), world.heads, world.tables.page_table.shape[-1]), -9, dtype=torch.int32)
    table = table.to(DEVICE)
    decode_update.decode_update(world.tables, pool, layer, rows, *tensors[1:], live, table, **method)
    queries = tensors[0].unflatten(1, (world.heads, world.group))
    out = torch.full_like(queries, float("nan"))
    longest = world.tables.page_table.shape[-1] * world.page
    decode_attention.decode_attention(queries, pool, live.contiguous(), table, out, SCALE, longest)
    for i, r in enumerate(members):
        if r < 0:
            assert not bool(out[i].any() | live[i].any())
            continue
        expected = world.attention(r, at[i], at[i] + 1, layer, SCALE)[0]
        close(out[i].flatten(0, 1), expected, world.dtype)
        assert live[i].tolist() == world.visible(r, at[i], at[i] + 1, layer)[:, 0].sum(1).tolist()
        world.done[r, layer] += 1
        world.decoded[r, layer] = True


def chunk(world, members, sizes, layer, window=None):
    """``sizes`` tokens of each of ``members``; checks attention and counts."""
    window = world.window if window is None else window
    pool = PagedCache.of(world.cache)
    spans = [(world.done[r, layer], world.done[r, layer] + n) for r, n in zip(members, sizes, strict=True)]
    offsets = [0]
    for n in sizes:
        offsets.append(offsets[-1] + n)
    chunks = ChunkRequests(world.first_blocks(members), ints(offsets), torch.tensor([a for a, _ in spans], device=DEVICE), max(sizes))  # fmt: skip  # noqa: E501
    queries, keys, values = (world.gather(x, members, spans, layer) for x in (world.queries, world.keys, world.values))
    if world.window is not None:
        verdicts = world.verdicts(members, spans, layer)
        expiry = chunk_plan.Verdicts(verdicts, window)
    else:
        expiry = torch.cat([world.expiry[r][a:b, layer] for r, (a, b) in zip(members, spans, strict=True)])
        expiry = expiry.T.to(torch.int32).contiguous().to(DEVICE)
    since = [a + (b - a) // 2 for a, b in spans]
    seen = torch.zeros((world.heads, len(queries)), dtype=torch.int64, device=DEVICE)
    sums = (sum(sizes) + layer) % 2 == 0  # of half of the chunks one number is wanted, of the others one a query
    counts = chunk_plan.ReadCounts(ints(since), seen, sums=sums)
    plan = chunk_plan.plan_chunks(world.tables, layer, chunks, expiry, counts=counts)
    out = torch.full_like(queries, float("nan"))
    both = (keys, values)
    chunk_attention.chunk_attention(world.tables, pool, layer, chunks, plan, queries, *both, out, SCALE)
    chunk_write.store_survivors(world.tables, pool, layer, chunks, plan, *both)
    for i, (r, (a, b)) in enumerate(zip(members, spans, strict=True)):
        part = slice(offsets[i], offsets[i + 1])
        close(out[part], world.attention(r, a, b, layer, SCALE, exact=b - a), world.dtype)
        counts = seen[:, part].cpu()
        if sums:
            assert torch.equal(counts[:, 0], world.visible(r, a, b, layer).sum((1, 2)))
            assert not counts[:, 1:].any()
        else:
            assert torch.equal(counts[:, since[i] - a :], world.visible(r, since[i], b, layer).sum(2))
            assert not counts[:, : since[i] - a].any()
        world.done[r, layer] = b
        world.decoded[r, layer] = False


def story(world, seed, steps, longest=40):
    """Random steps: some requests decode, others process chunks, in every layer; lists are checked after each."""
    draw = random.Random(seed)
    tokens = len(world.keys[0])
    for _ in range(steps):
        members = [r for r in range(world.requests) if world.done[r, 0] < tokens]
        draw.shuffle(members)
        split = draw.randint(0, len(members))
        prefills, decodes = members[:split], members[split:]
        sizes = [min(draw.randint(1, longest), tokens - world.done[r, 0]) for r in prefills]
        decodes = decodes + [-1] * draw.randint(0, 2)
        for layer in range(world.layers):
            if decodes:
                decode(world, decodes, layer)
            if prefills:
                chunk(world, prefills, sizes, layer)
        world.check_lists()


SHAPES = [(16, 2, 2, 32), (32, 1, 5, 64), (16, 3, 1, 128), (32, 2, 8, 32)]  # page, KV heads, group, head_dim


@pytest.mark.parametrize(("window", "shape"), [(0, 0), (1, 1), (5, 2), (24, 0), (24, 1), (3, 3)])
def test_delayed_eviction(window, shape):
    page, heads, group, dim = SHAPES[shape]
    seed = window + heads
    world = World(requests=3, heads=heads, group=group, dim=dim, page=page, window=window, device=DEVICE, seed=seed)
    story(world, seed, steps=5)


@pytest.mark.parametrize("window", [4, None])
def test_fp8(window):
    """Entries lie in the cache as the torch engine quantises them, to the bit, and are read so."""
    heads = 1 if window is None else 2
    world = World(requests=3, heads=heads, group=2, dim=32, window=window, device=DEVICE, seed=7, fp8=True)
    # Zeros, numbers too small for a scale of their own, and one that makes all others small.
    world.values[0][::3] = 0.0
    world.values[0][1::3] *= 1e-6
    world.values[1][::4] *= 1e-4
    world.keys[2][::2, ..., 5] = 100.0
    story(world, 7, steps=5)


no_bfloat16 = pytest.mark.skipif(not CUDA, reason="triton's interpreter multiplies bfloat16 as if it were integers")


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=no_bfloat16)])
def test_half_precision(dtype):
    world = World(requests=2, layers=1, group=4, dim=64, window=8, dtype=dtype, device=DEVICE, seed=11)
    story(world, 3, steps=5)


def test_long_chunks_and_lists():
    """More tokens than a block of anything: parts of lists, blocks of expired tokens, tiles of queries."""
    half = {"dtype": torch.float16, "device": DEVICE}
    world = World(requests=2, layers=1, heads=1, group=2, tokens=1500, page=32, window=20, rate=0.3, **half)
    for sizes in ([700, 150], [1, 640], [780, 1]):
        chunk(world, [0, 1], sizes, 0)
        world.check_lists()
    decode(world, [1, 0], 0)
    world.check_lists()


def test_nothing_evicted_equals_a_dense_cache():
    world = World(requests=2, heads=2, tokens=60, window=4, rate=0.0, device=DEVICE)
    story(world, 5, steps=6)
    for r, slot in enumerate(world.slots):
        assert (world.tables.lens[slot] == world.done[r, 0]).all()


def several_decodes(world, steps, **options):
    for _ in range(steps):
        decode(world, [0], 0, **options)


def test_the_checks_bite():
    world = World(requests=1, layers=1, tokens=60, window=8, rate=0.5, device=DEVICE, seed=1)
    with pytest.raises(AssertionError):
        chunk(world, [0], [50], 0, window=9)
    world = World(requests=1, layers=1, tokens=60, window=8, rate=0.5, device=DEVICE, seed=1)
    chunk(world, [0], [40], 0)
    with pytest.raises(AssertionError):
        several_decodes(world, 8, window=7)


def test_over_commit_goes_to_nobody_and_can_be_seen():
    world = World(requests=2, layers=1, tokens=64, window=70, rate=0.0, device=DEVICE)
    slot = world.slots[0]
    world.tables.num_superblocks[slot] = 1  # one page a list
    chunk(world, [1], [40], 0)
    chunk(world, [0], [16], 0)
    world.check_lists()
    before = world.cache.clone()
    several_decodes(world, 1)  # all lists share a page of nobody's
    with pytest.raises(AssertionError):
        world.check_lists()
    assert int(world.tables.pages_used[slot]) > int(world.tables.num_superblocks[slot]) * world.heads
    changed = (world.cache.view(torch.int32) != before.view(torch.int32)).flatten(1).any(1)
    assert torch.nonzero(changed)[:, 0].tolist() == [0]


def test_arguments_of_flash_attention():
    """What is handed to FlashAttention, read the way it documents, is this attention."""
    world = World(requests=2, layers=1, heads=2, group=3, tokens=50, window=4, device=DEVICE, seed=9)
    chunk(world, [0, 1], [40, 21], 0)
    members, spans = [1, 0], [(21, 22), (40, 41)]
    pool = PagedCache.of(world.cache)
    live, table = ints([[0, 0]] * 2), ints([[[0] * world.tables.page_table.shape[-1]] * 2] * 2)
    q, k, v = (world.gather(x, members, spans, 0) for x in (world.queries, world.keys, world.values))
    rows = DecodeRequests(world.first_blocks(members), ints([21, 40]))
    verdicts = world.verdicts(members, spans, 0)
    decode_update.decode_update(world.tables, pool, 0, rows, k, v, live, table, verdicts=verdicts, window=4)
    out = torch.zeros(2, 2, 3, world.dim, device=DEVICE)
    given = decode_fa3.arguments(q.unflatten(1, (2, 3)), pool, live, table, out, ints(range(9)), SCALE, 64)
    starts, keys, values = given["cu_seqlens_q"].tolist(), given["k"], given["v"]
    assert given["out"].data_ptr() == out.data_ptr()
    for sequence, length in enumerate(given["seqused_k"].tolist()):
        assert starts[sequence + 1] - starts[sequence] == given["max_seqlen_q"] == 1
        pages = given["block_table"][sequence, : -(-length // keys.shape[1])].long()
        seen = keys[pages].flatten(0, 1)[:length, 0].double()
        weights = (given["q"][starts[sequence]].double() @ seen.T * given["softmax_scale"]).softmax(-1)
        given["out"][starts[sequence]] = (weights @ values[pages].flatten(0, 1)[:length, 0].double()).float()
    for i, (r, (a, b)) in enumerate(zip(members, spans, strict=True)):
        close(out[i].flatten(0, 1), world.attention(r, a, b, 0, SCALE)[0], world.dtype)


class Paged:
    """A forward pass of hyperscale's own engine whose attention is the kernels'; one request, one chunk or token."""

    state = SimpleNamespace(rotates=False)  # the model applies RoPE

    def __init__(self, world, model, start):
        self.world, self.model, self.start, self.live = world, model, start, 0

    def attend(self, layer, queries, keys, values, scale):
        world, attention = self.world, self.model.model.layers[layer].self_attn
        logits = alpha_logits(attention, self.hidden, GateConfig.from_hf(self.model.config))[0]
        q, k, v = (x[0].transpose(0, 1).contiguous().to(DEVICE) for x in (queries, keys, values))
        verdicts, pool, tables = (logits > 0).to(DEVICE), PagedCache.of(world.cache), world.tables
        tokens, first = len(q), world.first_blocks([0])
        out = torch.empty_like(q)
        if tokens == 1:
            live = ints([[0] * world.heads])
            block_table = torch.zeros_like(tables.page_table[:1, 0])
            rows = DecodeRequests(first, ints([self.start]))
            gate = {"verdicts": verdicts, "window": world.window}
            decode_update.decode_update(tables, pool, layer, rows, k, v, live, block_table, **gate)
            shape = (1, world.heads, world.group, world.dim)
            decode_attention.decode_attention(q.view(shape), pool, live, block_table, out.view(shape), scale, 500)
            self.live += int(live.sum())
        else:
            chunks = ChunkRequests(first, ints([0, tokens]), ints([self.start]), tokens)
            plan = chunk_plan.plan_chunks(tables, layer, chunks, chunk_plan.Verdicts(verdicts, world.window))
            chunk_attention.chunk_attention(tables, pool, layer, chunks, plan, q, k, v, out, scale)
            chunk_write.store_survivors(tables, pool, layer, chunks, plan, k, v)
        return out[None].cpu()


@pytest.mark.parametrize("chunks", [[20, 1, 29], pytest.param([50], marks=pytest.mark.slow)])
def test_agrees_with_the_torch_engine(chunks):
    """DMS on a random model: the same greedy tokens, and the same reads to the entry."""
    model = tiny.with_gates(tiny.model(seed=3), window=6)
    prompt, new = tuple(int(i) for i in torch.randint(0, 63, (50,), generator=torch.Generator().manual_seed(2))), 30
    engine = TorchEngine(model, tiny.Characters(64), methods.create("dms", cr=8))
    (chain,) = engine.generate([Request("p", 0, prompt, new)], Sampling(temperature=0.0))
    world = World(requests=1, layers=2, heads=2, group=2, dim=16, page=16, window=6, device=DEVICE)
    ids, reads, found = torch.tensor([[*prompt, *chain.token_ids]]), 0, []
    with torch.inference_mode(), forward_pass.use_own_attention(model):
        at = 0
        for size in [*chunks, *[1] * (new - 1)]:
            current = Paged(world, model, at)
            logits = forward_pass.run(model, current, ids[:, at : at + size], torch.arange(at, at + size)[None])
            at += size
            if at >= len(prompt):
                found.append(int(logits[0].argmax()))
            reads += current.live if at > len(prompt) else 0
    assert found == list(chain.token_ids)
    assert reads / 4 == chain.trace.kv_reads[-1]
    assert reads < sum(range(51, 80)) * 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_more_stories(seed):
    draw = random.Random(seed)
    shape = {"heads": draw.choice([1, 2, 4]), "group": draw.randint(1, 8), "dim": draw.choice([32, 64, 128])}
    page, window = draw.choice([16, 32]), draw.choice([0, 2, 7, 16, 40])
    world = World(requests=3, page=page, window=window, rate=draw.random(), device=DEVICE, seed=seed, **shape)
    story(world, seed, steps=6, longest=60)
    world = World(requests=4, heads=1, page=page, rate=draw.random(), device=DEVICE, seed=seed)
    story(world, seed, steps=6, longest=60)


@pytest.mark.slow
def test_compiles_for_hopper(tmp_path):
    """What the interpreter accepts the compiler may refuse; a program has at most 227 KiB of shared memory there."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    program = ROOT / "tests" / "helpers" / "vllm" / "compile_kernels.py"
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = [line.split() for line in done.stdout.splitlines()]
    package = ROOT / "hyperscale"
    sources = [
        *(package / "engines" / "vllm" / "kernels").rglob("*.py"),
        package / "engines" / "torch" / "row_kernels.py",
    ]
    sources.append(package / "retrofit" / "attention" / "kernels.py")
    written = {name for source in sources for name in re.findall(r"def (_\w+_kernel)\(", source.read_text())}
    assert {name for name, _ in kernels} == written
    assert all(int(shared) <= 227 * 1024 for _, shared in kernels)
    # Training asks a device for what its own kernels take.
    training = set(re.findall(r"def (_\w+_kernel)\(", sources[-1].read_text()))
    assert len(training) == 3
    assert all(int(shared) <= SHARED_MEMORY for name, shared in kernels if name in training)
