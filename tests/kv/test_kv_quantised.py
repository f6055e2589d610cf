"""The quantised cache: any method over it gives what the method gives over a full cache of rounded entries."""

import pytest
import quantization_reference
import tiny
import torch
from engine_probe import prompts, watch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_matrix import ROWS
from reference_rules.dmc import DMC
from steered_tokenizer import SIZE, Marks

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.engines.torch import batch
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.forward_pass import use_own_attention
from hyperscale.errors import EngineError
from hyperscale.kv.cache import RaggedCache
from hyperscale.kv.formats import QUANTISED, vector_bytes
from hyperscale.kv.prefilled import PrefilledPrompt
from hyperscale.kv.quantization import make_codec
from hyperscale.models.shape import Shape

MAGNITUDES = st.sampled_from([0.0, 1e-30, 1e-6, 1e-3, 1.0, 40.0, 1e4])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUANTISED), st.sampled_from([4, 8, 32, 80, 128]), st.integers(0, 10**6), MAGNITUDES, MAGNITUDES)
def test_vectors_come_back_as_defined(kind, head_dim, seed, size, offset):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3, 2, head_dim, generator=generator) * size + offset
    made = make_codec(kind, head_dim, torch.float32)
    kept = made.encode(vectors)
    assert kept.dtype == torch.uint8
    assert kept.shape == (3, 2, vector_bytes(kind, head_dim, 4))
    back = made.decode(kept)
    assert torch.equal(back, quantization_reference.every(kind, vectors))
    # Half a step of each format, and what rounding scale and zero point to float16 adds; its smallest is 6e-8.
    largest = vectors.abs().amax(-1, keepdim=True)
    span = vectors.amax(-1, keepdim=True) - vectors.amin(-1, keepdim=True)
    step = {"fp8": largest / 28, "int8": largest / 250, "int4": span / 29 + largest / 1000}[kind]
    assert ((back - vectors).abs() <= step * 1.01 + 3e-5).all()


@pytest.mark.parametrize("kind", QUANTISED)
def test_bfloat16_rounds_what_float32_gives(kind):
    vectors = torch.randn(50, 64).to(torch.bfloat16)
    made = make_codec(kind, 64, torch.bfloat16)
    back = made.decode(made.encode(vectors))
    wide = make_codec(kind, 64, torch.float32)
    assert torch.equal(back, wide.decode(wide.encode(vectors.float())).to(torch.bfloat16))


def test_every_e4m3_code_is_read_right():
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    codes = codes[(codes & 0x7F) != 0x7F]  # not a number, and never written
    kept = torch.zeros(len(codes), 6, dtype=torch.uint8)
    kept[:, :2].view(torch.float16)[:] = 1.0
    kept[:, 2:] = codes[:, None]
    read = make_codec("fp8", 4, torch.float32).decode(kept)
    assert torch.equal(read, codes.view(torch.float8_e4m3fn).float()[:, None].expand(-1, 4))


class Rounded(RaggedCache):
    """A cache of the model's own type whose entries are rounded, one by one, before they are written."""

    kind = "auto"

    def __init__(self, *sizes, kv_dtype, **kinds):
        super().__init__(*sizes, **kinds)
        self.kind = kv_dtype

    def admit(self, prompt, lens, copies, *, encoded=False):
        if not encoded:
            keys, values = (
                [quantization_reference.every(self.kind, each) for each in both]
                for both in (prompt.keys, prompt.values)
            )
            prompt = PrefilledPrompt(prompt.length, keys, values, prompt.lens)
        super().admit(prompt, lens, copies, encoded=encoded)

    def attend(self, layer, queries, keys, values, *rest, **options):
        rounded = quantization_reference.every(self.kind, keys), quantization_reference.every(self.kind, values)
        return super().attend(layer, queries, *rounded, *rest, **options)


def settings_of(name):
    """Parameters that make a method of the registry work within a few dozen tokens, or None for its defaults."""
    known = {"vanilla": {"cr": 1}, "dms": {"cr": 8}}
    return known.get(name) or {"cr": 3, **({"recent": 4} if "recent" in methods.create(name, cr=3).params() else {})}


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", sorted(methods.available()))
def test_every_method_agrees_with_rounding_each_entry_as_it_is_written(name, kind, monkeypatch):
    model = DMC.prepare(tiny.with_gates(tiny.model(heads=4, kv_heads=2, head_dim=8, seed=3), window=6), 1)
    method = methods.create(name, **settings_of(name))
    items = prompts([(40, 45), (9, 30), (40, 12), (3, 50)], 63, 7)
    found = []
    for cache in (RaggedCache, Rounded):
        monkeypatch.setattr(batch, "RaggedCache", cache)
        engine = TorchEngine(model, tiny.Characters(64), method, batch_size=3, kv_dtype=kind)
        requests = [Request(problem, 0, ids, new, (10, 20)) for problem, ids, new in items]
        found.append(watch(engine, requests, Sampling(temperature=1.0, seed=5)))
    (chains, logits, held), (others, their_logits, their_held) = found
    for problem, _, _ in items:
        one, other = chains[problem], others[problem]
        assert one.token_ids == other.token_ids
        assert one.trace == other.trace
        for mine, theirs in zip(logits.get(problem, []), their_logits.get(problem, []), strict=True):
            assert torch.equal(mine, theirs)
        for mine, theirs in zip(held.get(problem, []), their_held.get(problem, []), strict=True):
            rows = [(a, b) for one, two in zip(mine, theirs, strict=True) for a, b in zip(one, two, strict=True)]
            assert all(torch.equal(a, b) for a, b in rows)
    monkeypatch.undo()
    exact = TorchEngine(model, tiny.Characters(64), method, batch_size=3)
    unrounded = watch(exact, requests, Sampling(temperature=1.0, seed=5))[1]
    first = items[0][0]
    assert not torch.equal(unrounded[first][0], logits[first][0]), "the cache was not quantised"


def test_the_matrix_of_methods_is_the_registry():
    """So that a method with a reference of its own is under test here too."""
    assert set(ROWS) <= set(methods.available())


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", ["dms", "window", "tova"])
def test_any_batch_and_any_branch_leave_a_chain_as_it_is(name, kind):
    model = tiny.with_gates(tiny.model(vocab=SIZE, seed=2), window=8)
    requests = [Request(f"p{i}", 0, tuple(j % 20 for j in range(5 + 9 * i)), 60, (20, 40)) for i in range(5)]

    def run(batch_size, answer=0):
        method = methods.create(name, **settings_of(name))
        engine = TorchEngine(model, Marks(), method, batch_size=batch_size, kv_dtype=kind)
        sampling = Sampling(temperature=1.0, seed=3, steering=Steering(answer=answer))
        return {c.problem: c for c in engine.generate(requests, sampling)}

    alone = run(1)
    for chains in (run(4), run(17)):
        assert {p: (c.token_ids, c.logprob, c.trace) for p, c in chains.items()} == {
            p: (c.token_ids, c.logprob, c.trace) for p, c in alone.items()
        }
    if methods.create(name, **settings_of(name)).length_invariant:  # L of a chain that may answer includes the answer
        branched = run(4, answer=4)
        assert sum(len(c.branches) for c in branched.values()) > 1
        assert {p: (c.token_ids, c.trace) for p, c in branched.items()} == {
            p: (c.token_ids, c.trace) for p, c in alone.items()
        }


def peak_bytes(model, kind, name):
    """Most bytes allocated while a batch of long chains runs, and the entries that lived then."""
    method = methods.create(name, **settings_of(name))
    state = TorchEngine(model, tiny.Characters(64), method, batch_size=8, kv_dtype=kind).start_batch(Sampling())
    forced = tuple(i % 60 for i in range(300))
    waiting = iter([Request("p", chain, tuple(range(40)), 300, forced_ids=forced) for chain in range(8)])
    most = entries = 0
    while True:
        with torch.inference_mode(), use_own_attention(model):
            if state.advance(waiting) is None:
                break
        most = max(most, state.cache.allocated_bytes)
        entries = max(entries, state.cache.live_entries)
    assert state.cache.allocated_bytes == 0
    return most, entries


@pytest.mark.parametrize("name", ["vanilla", "window"])
def test_allocated_bytes_fall_with_the_bits(name):
    model = tiny.model(heads=2, kv_heads=2, head_dim=64, seed=1)
    full, entries = peak_bytes(model, "auto", name)
    for kind in QUANTISED:
        most, the_same = peak_bytes(model, kind, name)
        assert the_same == entries
        # Besides keys and values there is one number of bias a slot, of the model's type, for both.
        per_slot = 2 * vector_bytes(kind, 64, 4) + 4
        assert most == full * per_slot // (2 * 64 * 4 + 4)


def test_bytes_of_an_entry():
    shape = Shape(layers=3, kv_heads=2, head_dim=128)
    assert shape.entry_bytes("bfloat16") == 2 * 128 * 2 * 6
    assert shape.entry_bytes("bfloat16", "auto") == shape.entry_bytes("bfloat16")
    assert shape.entry_bytes("bfloat16", "fp8") == shape.entry_bytes("float32", "int8") == 2 * (128 + 2) * 6
    assert shape.entry_bytes("bfloat16", "int4") == 2 * (64 + 4 * 4) * 6  # 5 bits a number
    assert Shape(1, 1, 80).entry_bytes("float32", "int4") == 2 * (40 + 5 * 4)


def test_errors():
    with pytest.raises(EngineError, match="unknown type of the cache 'int3': use auto, fp8, int8, int4"):
        make_codec("int3", 64, torch.float32)
    with pytest.raises(EngineError, match="multiple of 4 channels, not 6: use int8"):
        make_codec("int4", 6, torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", QUANTISED)
def test_cuda_keeps_the_same_bytes(kind):
    vectors = torch.randn(400, 64) * torch.logspace(-6, 4, 400)[:, None]
    made = make_codec(kind, 64, torch.float32)
    there = made.encode(vectors.cuda())
    assert torch.equal(there.cpu(), made.encode(vectors))
    assert torch.equal(made.decode(there).cpu(), made.decode(there.cpu()))
