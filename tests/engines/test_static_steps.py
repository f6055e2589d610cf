"""Decode steps that CUDA graphs can hold, recorded and repeated on the CPU, against steps that are launched anew."""

import pytest
import tiny
import torch
from recorded_steps import RECORDED, RecordedCalls
from reference_rules.dmc import DMC
from steered_tokenizer import WORD, Marks

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.static_step import padded_size

METHODS = {
    "vanilla": {"cr": 1},
    "dms": {"cr": 8},
    "window": {"cr": 4},
    "random": {"cr": 4, "recent": 3, "pin_prompt": False, "rule": "fixed"},
    "streaming": {"cr": 4},
    "quest": {"cr": 4, "dense_layers": 1},
    "keydiff": {"cr": 4},
    "knorm": {"cr": 4},
    "triattention": {"cr": 4},
    "tova": {"cr": 4},
    "h2o": {"cr": 4},
    "snapkv": {"cr": 4},
    "rkv": {"cr": 4, "rule": "fixed", "pin_prompt": False},
    "dmc": {"cr": 2},
}


def requests():
    """Prompts of several lengths, chains that share them, and lengths that let the batch shrink and grow."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for problem in range(5):
        length = (3, 90, 40, 17, 61)[problem]
        ids = tuple(torch.randint(0, 64, (length,), generator=generator).tolist())
        made += [Request(f"p{problem}", chain, ids, 12 + 29 * chain + 11 * problem, (16, 64)) for chain in range(4)]
    return made


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
