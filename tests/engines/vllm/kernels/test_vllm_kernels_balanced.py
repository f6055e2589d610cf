"""Attention over few lists that is dealt out evenly, against plain softmax attention."""

import pytest
import torch
from interpreted import CUDA, DEVICE, MARKS

pytestmark = MARKS
PAGE, SCALE = 16, 0.3


def lists(lens, heads, group, dim, dtype, seed):
    """Queries, a cache with the pages of every list in random order, lengths, block table."""
    from hyperscale.engines.vllm.kernels.arguments import PagedCache

    draw = torch.Generator().manual_seed(seed)
    requests, width = len(lens) // heads, max(-(-length // PAGE) for length in lens) + 1
    total = sum(-(-length // PAGE) for length in lens) + 3
    data = torch.randn(total, 1, PAGE, 2 * dim, generator=draw).to(dtype)
    order, table = torch.randperm(total, generator=draw).tolist(), torch.full((len(lens), width), -7, dtype=torch.int32)
    for row, length in enumerate(lens):
        count = -(-length // PAGE)
        table[row, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    # Queries as a slice of what a projection gives: their rows are not next to each other.
    queries = torch.randn(requests, heads * group + 3, dim, generator=draw).to(dtype)[:, : heads * group]
    cache = PagedCache.of(data.to(DEVICE))
    lengths = torch.tensor(lens, dtype=torch.int32).view(requests, heads)
    moved = (lengths.to(DEVICE), table.view(requests, heads, width).to(DEVICE))
    return queries.to(DEVICE).unflatten(1, (heads, group)), cache, *moved


def counters(lens):
    return torch.zeros_like(lens)


def expected(queries, cache, lens, table):
    out = torch.zeros(queries.shape, dtype=torch.float64)
    for request, head in torch.cartesian_prod(torch.arange(len(lens)), torch.arange(lens.shape[1])).tolist():
        length = int(lens[request, head])
        if not length:
            continue
        pages = table[request, head, : -(-length // PAGE)].long()
        keys, values = (part[pages].flatten(0, 1)[:length].double().cpu() for part in (cache.keys, cache.values))
        weights = (queries[request, head].double().cpu() @ keys.T * SCALE).softmax(-1)
        out[request, head] = weights @ values
    return out


LISTS = {
    "even": [40] * 8,
    "one list": [333],
    "one entry each": [1] * 6,
    "uneven": [1, 200, 3, 64, 0, 17, 31, 32],
    "empty in front, between and behind": [0, 0, 90, 0, 33, 0, 0, 0],
    "nothing": [0, 0],
    "more lists than programs": [5 + 3 * i for i in range(30)],
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", LISTS)
def test_balanced_attention(case, fused):
    from hyperscale.engines.vllm.kernels.decode.balanced_attention import BalancedLaunch, balanced_attention

    lens = LISTS[case]
    heads = 2 if len(lens) % 2 == 0 else 1
    made = lists(lens, heads, 3, 32, torch.float32, seed=len(lens))
    launch, done = BalancedLaunch.of(torch.float32, 32, len(lens))._replace(fused=fused), counters(made[2])
    for _ in range(2):  # a launch leaves to the next what it found
        out = torch.full(made[0].shape, float("nan"), device=DEVICE)
        balanced_attention(*made, out, done, SCALE, launch)
        torch.testing.assert_close(out.double().cpu(), expected(*made), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("launch", [(1, 16, 4, 2), (3, 64, 4, 3), (3, 64, 4, 3, True)])
@pytest.mark.parametrize("shape", [(5, 128), (1, 64), (8, 16)])
def test_balanced_attention_of_other_shapes(shape, launch):
    from hyperscale.engines.vllm.kernels.decode.balanced_attention import BalancedLaunch, balanced_attention

    made = lists([70, 5, 129, 64], 2, *shape, torch.float32, seed=1)
    out = torch.full(made[0].shape, float("nan"), device=DEVICE)
    balanced_attention(*made, out, counters(made[2]), SCALE, BalancedLaunch(*launch))
    torch.testing.assert_close(out.double().cpu(), expected(*made), rtol=1e-4, atol=1e-5)


def test_a_wrong_length_is_noticed():
    from hyperscale.engines.vllm.kernels.decode.balanced_attention import balanced_attention

    queries, cache, lens, table = lists([70, 5, 129, 64], 2, 3, 32, torch.float32, seed=1)
    out = torch.zeros(queries.shape, device=DEVICE)
    balanced_attention(queries, cache, lens, table, out, counters(lens), SCALE)
    lens[1, 0] -= 1
    wrong = expected(queries, cache, lens, table)
    assert not torch.allclose(out.double().cpu(), wrong, rtol=1e-4, atol=1e-5)


def test_balanced_attention_of_a_quantised_cache_equals_the_other_kernel():
    from hyperscale.engines.vllm.kernels.arguments import PagedCache
    from hyperscale.engines.vllm.kernels.decode.balanced_attention import balanced_attention
    from hyperscale.engines.vllm.kernels.decode_attention import decode_attention
    from hyperscale.kv.formats import SCALE_BYTES

    queries, plain, lens, table = lists([70, 5, 129, 64], 2, 3, 32, torch.float32, seed=1)
    pages, _, dim = plain.keys.shape
    draw = torch.Generator().manual_seed(0)
    data = torch.zeros(pages, 1, PAGE, 2 * (dim + SCALE_BYTES), dtype=torch.uint8, device=DEVICE)
    cache = PagedCache.of(data)
    codes = torch.randn(2, *plain.keys.shape, generator=draw).to(torch.float8_e4m3fn).view(torch.uint8).to(DEVICE)
    cache.keys.copy_(codes[0])
    cache.values.copy_(codes[1])
    halves = torch.rand(pages, 2 * PAGE, generator=draw).to(torch.float16)
    cache.scales.copy_(halves.view(torch.int32).to(DEVICE))
    outs = [torch.full(queries.shape, float("nan"), device=DEVICE) for _ in range(2)]
    balanced_attention(queries, cache, lens, table, outs[0], counters(lens), SCALE)
    decode_attention(queries, cache, lens, table, outs[1], SCALE, 200)
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_balanced_attention_in_a_graph_follows_lengths_that_change(fused):
    from hyperscale.engines.vllm.kernels.decode.balanced_attention import BalancedLaunch, balanced_attention

    launch = BalancedLaunch.of(torch.bfloat16, 128, 8)._replace(fused=fused)
    queries, cache, lens, table = lists([900, 1500, 40, 2000], 2, 5, 128, torch.bfloat16, seed=1)
    out = torch.zeros(queries.shape, dtype=torch.bfloat16, device=DEVICE)
    done = counters(lens)
    balanced_attention(queries, cache, lens, table, out, done, SCALE, launch)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(20):
            balanced_attention(queries, cache, lens, table, out, done, SCALE, launch)
    for change in (0, 17, 800):
        lens.sub_(change).clamp_(min=0)
        graph.replay()
        torch.testing.assert_close(out.double().cpu(), expected(queries, cache, lens, table), rtol=2e-2, atol=2e-2)
