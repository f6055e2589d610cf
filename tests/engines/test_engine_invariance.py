"""A chain is a function of (model, method, prompt, sampling, problem, chain): never of the batch it ran in."""

import pytest
import tiny
import torch
from reference_rules.dmc import DMC

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = pytest.mark.e2e

METHODS = {
    "vanilla": {"cr": 1},
    "dms": {"cr": 8},
    "window": {"cr": 4},
    "random": {"cr": 4},
    "streaming": {"cr": 4},
    "quest": {"cr": 4, "dense_layers": 0},
    "keydiff": {"cr": 4},
    "knorm": {"cr": 4},
    "triattention": {"cr": 4},
    "tova": {"cr": 4},
    "h2o": {"cr": 4},
    "snapkv": {"cr": 4},
    "rkv": {"cr": 4, "rule": "fixed", "pin_prompt": False},
    "dmc": {"cr": 2},
}
UNPINNED = {name: {"cr": 4, "pin_prompt": False, "rule": "fixed", "recent": 3} for name in ("window", "random")}


def requests():
    generator = torch.Generator().manual_seed(0)
    made = []
    for problem in range(4):
        length = int(torch.randint(1, 120, (), generator=generator))
        ids = tuple(torch.randint(0, 64, (length,), generator=generator).tolist())
        made += [Request(f"p{problem}", chain, ids, 20 + 37 * chain + 11 * problem, (16, 64)) for chain in range(4)]
    return made


def run(model, method, batch_size, order):
    engine = TorchEngine(model, tiny.Characters(65), method, batch_size=batch_size)
    made = requests()
    chains = list(engine.generate((made[i] for i in order), Sampling(temperature=1.0, top_p=0.95, seed=3)))
    assert len(chains) == len(made)
    return {(c.problem, c.chain): (c.token_ids, c.text, c.finish, c.logprob, c.trace) for c in chains}


#: Families differ in their projections alone: two methods without gates cover the other two.
FAMILIES = {"vanilla": "llama", "window": "qwen2"}


#: One method by default of each kind of state; tests/engines/test_engine_steering.py has the others' batches.
QUICK = ("vanilla", "dms", "window", "quest", "tova", "snapkv", "dmc")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*METHODS, "dms, borrowed")],
)
def test_bitwise_the_same_in_any_batch_and_order(name):
    name, _, variant = name.partition(", ")
    family = FAMILIES.get(name, "qwen3")
    model = tiny.with_gates(tiny.model(family, heads=8, kv_heads=2, seed=2), window=8, separate=not variant)
    model = DMC.prepare(model, 1)
    method = methods.create(name, **METHODS[name])
    count = len(requests())
    alone = run(model, method, 1, range(count))
    for batch_size in (3, 16, 17):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(batch_size)).tolist()
        assert run(model, method, batch_size, order) == alone
    assert sum(len(ids) for ids, *_ in alone.values()) > 1000


@pytest.mark.parametrize("name", ["vanilla", "dms", "window", "random", "snapkv", "dmc"])
def test_a_shorter_chain_is_the_beginning_of_a_longer_one(name):
    model = DMC.prepare(tiny.with_gates(tiny.model(seed=4), window=8), 1)
    engine = TorchEngine(model, tiny.Characters(65), methods.create(name, **METHODS[name]), batch_size=4)
    prompt = tuple(range(30))
    (long,) = engine.generate([Request("p", 0, prompt, 200, (50, 120))], Sampling(temperature=1.0))
    for index, length in enumerate((50, 120)):
        (short,) = engine.generate([Request("p", 0, prompt, length)], Sampling(temperature=1.0))
        assert short.token_ids == long.token_ids[:length]
        assert short.text == long.text[: long.trace.chars[index]]
        assert short.trace.kv_reads[-1] == long.trace.kv_reads[index]
        assert short.trace.peak_kv[-1] == long.trace.peak_kv[index]


@pytest.mark.parametrize("name", UNPINNED)
def test_bitwise_the_same_when_the_prompt_is_cut(name):
    model = tiny.model(heads=8, kv_heads=2, seed=2)
    method = methods.create(name, **UNPINNED[name])
    count = len(requests())
    alone = run(model, method, 1, range(count))
    assert run(model, method, 7, reversed(range(count))) == alone


def test_noise_depends_on_seed_problem_and_chain():
    model = tiny.model(seed=5)
    engine = TorchEngine(model, tiny.Characters(65), methods.create("vanilla", cr=1), batch_size=8)

    def ids(problem, chain, seed):
        (made,) = engine.generate([Request(problem, chain, (1, 2, 3), 30)], Sampling(temperature=2.0, seed=seed))
        return made.token_ids

    assert ids("a", 0, 0) == ids("a", 0, 0)
    assert len({ids("a", 0, 0), ids("b", 0, 0), ids("a", 1, 0), ids("a", 0, 1)}) == 4
