"""The ragged cache's storage: rows keep their contents whatever comes and goes, and evicted bytes are used again."""

from unittest.mock import patch

import numpy as np
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.forward_pass import use_own_attention
from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.slab import capacity


def test_capacity():
    assert [capacity(n) for n in (0, 31, 32, 63, 64, 95, 96, 128, 191, 192, 2047, 2048)] == [
        *(32, 32, 64, 64, 96, 96, 128, 192, 192, 256, 2048, 3072)
    ]


def prompt_of(lens, length, dim, tag):
    """A prompt whose entry j of head h of layer l is filled with a number that says so."""
    layers, heads = lens.shape
    names = tag + np.arange(layers)[:, None, None] * 0.25 + np.arange(heads)[None, :, None] * 0.0625
    entries = torch.from_numpy(names + np.arange(length) * 1000.0).to(torch.float32)[..., None].expand(-1, -1, -1, dim)
    return PrefilledPrompt(length, list(entries), list(-entries), torch.from_numpy(lens), None)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_keep_their_contents(data):
    layers, heads, dim, max_chains = 2, 3, 4, 5
    torch.manual_seed(data.draw(st.integers(0, 99)))
    cache = RaggedCache(layers, heads, dim, max_chains, dtype=torch.float32, device=torch.device("cpu"))
    mirror = []  # per chain [layer][head] list of the first component of each entry, in slot order
    tag = 0
    for _ in range(data.draw(st.integers(3, 25))):
        action = data.draw(st.sampled_from(["admit", "remove", "prune", "step", "step", "step"]))
        if action == "admit" and len(mirror) < max_chains:
            tag += 1
            length = data.draw(st.integers(1, 140))
            shape = (layers, heads)
            seed = data.draw(st.integers(0, 99))
            lens = np.random.default_rng(seed).integers(1, length + 1, size=shape)
            if data.draw(st.booleans()):
                lens[:] = length
            copies = data.draw(st.integers(1, max_chains - len(mirror)))
            prompt = prompt_of(lens, length, dim, tag)
            cache.admit(prompt, lens, copies)
            for _ in range(copies):
                mirror.append(
                    [[prompt.keys[i][h, : lens[i, h], 0].tolist() for h in range(heads)] for i in range(layers)]
                )
        elif action == "remove" and mirror:
            gone = data.draw(st.sets(st.integers(0, len(mirror) - 1), min_size=1))
            dst, src = cache.remove(list(gone))
            for target, source in zip(dst, src, strict=True):
                mirror[target] = mirror[source]
            del mirror[len(mirror) - len(gone) :]
        elif action == "prune" and mirror:
            even = [c for c, held in enumerate(mirror) if len({len(r) for layer in held for r in layer}) == 1]
            chosen = data.draw(st.lists(st.sampled_from(even), unique=True)) if even else []
            masks, seed = {}, data.draw(st.integers(0, 99))

            def keep(numbers, chains, rows, masks=masks, seed=seed):
                length = int(rows.live.sum(-1).max())
                left = torch.rand(rows.live.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
                left[..., 0] = True
                for layer, chain, mask in zip(numbers.tolist(), chains.tolist(), left & rows.live, strict=True):
                    assert (layer, chain) not in masks
                    masks[layer, chain] = mask
                assert rows.keys.shape[2] >= length
                return left & rows.live

            # One pass for all rows, a few rows a pass, or one.
            pass_bytes = data.draw(st.sampled_from([1 << 26, 1 << 14, 1]))
            if chosen:
                with patch("hyperscale.kv.cache._pass_bytes", return_value=pass_bytes):
                    cache.prune(chosen, keep)
                assert set(masks) == {(layer, chain) for layer in range(layers) for chain in chosen}
            for (layer, chain), mask in masks.items():
                for head, row in enumerate(mirror[chain][layer]):
                    mirror[chain][layer][head] = [x for x, stays in zip(row, mask[head].tolist()) if stays]  # noqa: B905
        elif action == "step" and mirror:
            cache.reindex()
            n = len(mirror)
            for _ in range(data.draw(st.integers(1, 40))):
                for layer in range(layers):
                    keys = torch.randn(n, heads, dim)
                    appends = torch.rand(n, 1).expand(n, heads) < 0.7
                    lens_now = cache.lens[layer, :n]
                    slots_now = torch.where(appends, lens_now, (torch.rand(n, heads) * lens_now).long())
                    queries = torch.randn(n, heads * 2, dim)
                    for chain in range(n):
                        for head in range(heads):
                            row, slot = mirror[chain][layer][head], int(slots_now[chain, head])
                            row[slot : slot + 1] = [float(keys[chain, head, 0])]
                    cache.attend(layer, queries, keys, -keys, slots_now, 0.5)
                cache.grow(cache.full_rows(n).numpy())
                cache.reindex()
        assert cache.live_entries == sum(len(row) for chain in mirror for layer in chain for row in layer)
        for chain, held in enumerate(mirror):
            for layer in range(layers):
                for head in range(heads):
                    keys, values = cache.row(layer, chain, head)
                    assert keys[:, 0].tolist() == held[layer][head]
                    assert torch.equal(values, -keys)
    if mirror:
        cache.remove(list(range(len(mirror))))
    assert cache.allocated_bytes == 0


def peak_bytes(method, model, tokens):
    """Peak of allocated and of live bytes over a batch of chains."""
    engine = TorchEngine(model, tiny.Characters(65), method, batch_size=8)
    batch = engine.start_batch(Sampling(temperature=1.5))
    waiting = iter([Request("p", chain, tuple(range(40)), tokens) for chain in range(16)])
    entry = 2 * batch.cache.head_dim * 4
    allocated = live = 0
    while True:
        with torch.inference_mode(), use_own_attention(model):
            if batch.advance(waiting) is None:
                break
        allocated = max(allocated, batch.cache.allocated_bytes)
        live = max(live, batch.cache.live_entries * entry)
    assert batch.cache.allocated_bytes == 0
    return allocated, live


def test_evicted_bytes_are_used_again():
    model = tiny.with_gates(tiny.model(seed=1), window=16, offset=-150.0)
    dense, dense_live = peak_bytes(methods.create("vanilla", cr=1), model, 400)
    sparse, sparse_live = peak_bytes(methods.create("dms", cr=8), model, 400)
    assert dense_live > 8 * sparse_live
    assert dense > 5 * sparse
    # Storage follows what lives: whole size classes, and slabs that grow by halves.
    assert dense < 3 * dense_live
