"""The kernel that merges tokens of decode steps, against DMC's rule in plain torch, token by token."""

from types import SimpleNamespace

import pytest
import torch
from interpreted import DEVICE, MARKS

from hyperscale.engines.vllm.kernels.decode.token_merge import merge_tokens
from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.worker.methods.dmc import WorkerDMC

pytestmark = MARKS
HEADS, DIM, SLOTS = 3, 32, 6


def worker(scale, offset):
    tables = SimpleNamespace(layers=2, heads=HEADS, lens=torch.zeros(SLOTS), expiry=torch.zeros(1, device=DEVICE))
    neurons = SimpleNamespace(dmc_cr=2.0, dmc_alpha_scale=scale, dmc_initial_alpha_offset=offset)
    return WorkerDMC(tables, Options(method="dmc"), SimpleNamespace(head_dim=DIM, config=neurons))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (100.0, 20.0)])
@pytest.mark.parametrize("group", [1, 5])
def test_the_kernel_merges_as_the_rule_says(scale, offset, group):
    plain, fused = worker(scale, offset), worker(scale, offset)
    draw = torch.Generator().manual_seed(group)
    num_merged = 0
    for step in range(12):
        slots = torch.randperm(SLOTS - 1, generator=draw)[:4].to(DEVICE) + 1
        positions = torch.full((4,), step, device=DEVICE)
        positions[0] = 0  # a request that begins does not go on with what its slot held
        wide = torch.randn(4, HEADS * (group + 2), DIM, generator=draw).to(DEVICE)
        queries, keys, values = wide.split([HEADS * group, HEADS, HEADS], 1)
        told = []
        for method in (plain, fused):
            own_keys, own_values = keys.contiguous().clone(), values.contiguous().clone()
            logits = torch.zeros(4, HEADS, device=DEVICE)
            if method is plain:
                offsets = torch.arange(5, device=DEVICE)
                method.merge(1, slots, offsets, 1, positions, queries, own_keys, own_values, logits)
            else:
                merge_tokens(queries, own_keys, own_values, logits, positions, slots, method.sums[1], scale, offset)
            told.append((own_keys, own_values, logits))
        for ours, theirs in zip(*told, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused.sums, plain.sums, rtol=1e-4, atol=1e-5)
        assert (told[0][2][0] == -1).all()
        num_merged += int((told[0][2] > 0).sum())
    assert 20 < num_merged < 100
    assert not plain.sums[0].any()


def test_chunks_are_merged_as_single_tokens_are():
    """Two requests, one of which goes on: in one step, and token by token."""
    whole, single = worker(1.0, 0.0), worker(1.0, 0.0)
    draw = torch.Generator().manual_seed(0)
    starts, sizes, slots = (3, 0), (7, 20), torch.tensor([2, 4], device=DEVICE)
    for method in (whole, single):
        method.sums[1, 2] = torch.rand(HEADS, 2 * DIM + 1, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    tokens = sum(sizes)
    queries, keys, values = (torch.randn(tokens, heads, DIM, generator=draw).to(DEVICE) for heads in (6, 3, 3))
    positions = torch.cat([torch.arange(a, a + n) for a, n in zip(starts, sizes, strict=True)]).to(DEVICE)
    found = keys.clone(), values.clone(), torch.zeros(tokens, HEADS, device=DEVICE)
    offsets = torch.tensor([0, sizes[0], tokens], device=DEVICE)
    whole.merge(1, slots, offsets, max(sizes), positions, queries, *found)
    wanted = keys.clone(), values.clone(), torch.zeros(tokens, HEADS, device=DEVICE)
    for token in range(tokens):
        part, request = slice(token, token + 1), int(token >= sizes[0])
        parts = (each[part] for each in wanted)
        single.merge(1, slots[request : request + 1], torch.arange(2), 1, positions[part], queries[part], *parts)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.sums, single.sums, rtol=1e-4, atol=1e-5)
    assert (found[2] > 0).any(0).all()
