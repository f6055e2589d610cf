"""The GPU kernels of the vLLM engine against the slow, obvious reference; in triton's interpreter where there is no GPU."""

import os
import random

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 from the start", allow_module_level=True)

from ragged_world import World  # noqa: E402

from hyperscale.engines.vllm import kernels_decode, kernels_plan, kernels_prefill, kernels_update  # noqa: E402
from hyperscale.engines.vllm.paged import Chunks, Decodes, Pool  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
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
    pool = Pool.of(world.cache)
    real = [r if r >= 0 else 0 for r in members]
    at = [world.done[r, layer] if r >= 0 else 0 for r in members]
    spans = [(a, a + 1) for a in at]
    rows = Decodes(world.first_blocks(members), torch.tensor(at, device=DEVICE))
    tensors = [world.gather(x, real, spans, layer) for x in (world.queries, world.keys, world.values)]
    rule = {}
    if world.window is not None:
        rule = {"verdicts": world.verdicts(real, spans, layer), "window": window}
    else:
        assert world.heads == 1, "a rule that knows a token's expiry at once gives one for all heads"
        rule = {"born": ints([int(world.expiry[r][a, layer, 0]) for r, a in zip(real, at, strict=True)])}
    wide = torch.full((len(members), world.layers, world.heads), -3, dtype=torch.int32, device=DEVICE)
    live = wide[:, layer]
    table = torch.full((len(members), world.heads, world.tables.page_table.shape[-1]), -9, dtype=torch.int32)
    table = table.to(DEVICE)
    kernels_update.decode_update(world.tables, pool, layer, rows, *tensors[1:], live, table, **rule)
    queries = tensors[0].unflatten(1, (world.heads, world.group))
    out = torch.full_like(queries, float("nan"))
    longest = world.tables.page_table.shape[-1] * world.page
    kernels_decode.decode_attention(queries, pool, live.contiguous(), table, out, SCALE, longest)
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
    pool = Pool.of(world.cache)
    spans = [(world.done[r, layer], world.done[r, layer] + n) for r, n in zip(members, sizes, strict=True)]
    offsets = [0]
    for n in sizes:
        offsets.append(offsets[-1] + n)
    chunks = Chunks(world.first_blocks(members), ints(offsets), torch.tensor([a for a, _ in spans], device=DEVICE), max(sizes))  # fmt: skip  # noqa: E501
    queries, keys, values = (world.gather(x, members, spans, layer) for x in (world.queries, world.keys, world.values))
    if world.window is not None:
        verdicts = world.verdicts(members, spans, layer)
        expiry = kernels_plan.delayed_expiries(world.tables, layer, chunks, verdicts, window)
    else:
        expiry = torch.cat([world.expiry[r][a:b, layer] for r, (a, b) in zip(members, spans, strict=True)])
        expiry = expiry.T.to(torch.int32).contiguous().to(DEVICE)
    plan = kernels_plan.plan_chunks(world.tables, layer, chunks, expiry)
    since = [a + (b - a) // 2 for a, b in spans]
    seen = kernels_plan.seen(world.tables, layer, chunks, plan, ints(since))
    out = torch.full_like(queries, float("nan"))
    both = (keys, values)
    kernels_prefill.prefill_attention(world.tables, pool, layer, chunks, plan, queries, *both, out, SCALE)
    kernels_prefill.write_survivors(world.tables, pool, layer, chunks, plan, *both)
    for i, (r, (a, b)) in enumerate(zip(members, spans, strict=True)):
        part = slice(offsets[i], offsets[i + 1])
        close(out[part], world.attention(r, a, b, layer, SCALE), world.dtype)
        counts = seen[:, part][:, since[i] - a :].cpu()
        assert torch.equal(counts.long(), world.visible(r, since[i], b, layer).sum(2))
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


@pytest.mark.parametrize("window", [0, 1, 5, 24])
@pytest.mark.parametrize(("page", "heads", "group", "dim"), [(16, 2, 2, 32), (32, 1, 5, 64), (16, 3, 1, 128)])
def test_delayed_eviction(window, page, heads, group, dim):
    seed = window + heads
    world = World(requests=3, heads=heads, group=group, dim=dim, page=page, window=window, device=DEVICE, seed=seed)
    story(world, seed, steps=6)
