"""Decode steps that CUDA graphs can hold, recorded and repeated on the CPU, against steps that are launched anew."""

import pytest
import tiny
from recorded_steps import METHODS, RECORDED, Counting, RecordedCalls, Waiting, WaitingError, requests
from reference_rules.dmc import DMC
from steered_tokenizer import END, SIZE, WORD, Marks

from hyperscale import methods
from hyperscale.engines.base import Sampling, Steering
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.static_step import padded_size

pytestmark = pytest.mark.e2e


def run(model, method, batch_size, sampling, tokenizer, *, static, made=None):
    engine = TorchEngine(model, tokenizer, method, batch_size=batch_size)
    engine.static = static
    chains = engine.generate(requests() if made is None else made, sampling)
    return {(c.problem, c.chain): (c.token_ids, c.finish, c.logprob, c.trace, strip(c.branches)) for c in chains}


def strip(branches):
    return [(b.at, b.token_ids, b.logprob, b.kv_reads, b.peak_kv) for b in branches]


@pytest.mark.parametrize("name", [*METHODS, "dms, borrowed"])
def test_recorded_steps_give_the_same_chains_and_costs(name):
    name, _, variant = name.partition(", ")
    model = tiny.with_gates(tiny.model(heads=8, kv_heads=2, seed=2), window=8, separate=not variant)
    model = DMC.prepare(model, 1)
    method = methods.create(name, **METHODS[name])
    sampling = Sampling(temperature=1.0, top_p=0.95, seed=3, repetition_penalty=1.1)
    expected = run(model, method, 7, sampling, tiny.Characters(65), static=None)
    assert run(model, method, 7, sampling, tiny.Characters(65), static=RECORDED) == expected
    calls = RecordedCalls.latest
    assert calls.replays > 100
    # With 18 places the padded batch is 32 chains, then 16.
    assert run(model, method, 18, sampling, tiny.Characters(65), static=RECORDED) == expected
    assert RecordedCalls.latest.sizes == {16, 32}


def test_steps_that_are_steered():
    """Forced answers branch off copies of chains, and inserted tokens take the place of drawn ones."""
    model = tiny.with_gates(tiny.model(heads=8, kv_heads=2, seed=3, vocab=SIZE), window=8)
    steering = Steering(extend=1, word=WORD, answer=5)
    sampling = Sampling(temperature=1.0, seed=3, steering=steering)
    for name in ("dms", "tova", "snapkv"):
        method = methods.create(name, **METHODS[name])
        made = requests(END)
        found = [run(model, method, 6, sampling, Marks(), static=static, made=made) for static in (None, RECORDED)]
        assert found[0] == found[1]
        assert RecordedCalls.latest.replays > 100
        assert any(branches for *_, branches in found[0].values())
        assert {key[2] for key in RecordedCalls.latest.records if key[0] == "draw"} == {False, True}


def test_a_step_that_waits_is_refused():
    with pytest.raises(WaitingError, match="item"):
        run(tiny.model(), Waiting(), 4, Sampling(temperature=0.0), tiny.Characters(65), static=RECORDED)


def test_a_step_that_depends_on_python_goes_wrong():
    """The control of these tests: what Python computed while a step was recorded is repeated."""
    found = [
        run(tiny.model(), Counting(), 4, Sampling(temperature=0.0), tiny.Characters(65), static=static)
        for static in (None, RECORDED)
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(("count", "size"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 96), (97, 128), (129, 192)])
def test_sizes_of_batches(count, size):
    assert padded_size(count) == size
    assert padded_size(size) == size
