"""CUDA graphs of the torch engine on a GPU: the chains and costs of steps that are launched kernel by kernel."""

import gc
import warnings
from dataclasses import replace

import pytest
import tiny
import torch
from recorded_steps import METHODS, Counting, DirectCalls, Waiting, requests
from reference_rules.dmc import DMC

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.static_step import StaticStep
from hyperscale.utils.cuda_graphs import CudaGraphs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def engine(model, method, **options):
    """An engine, and a list that gets the `CudaGraphs` of every batch that it starts from now on."""
    made = TorchEngine(model, tiny.Characters(65), method, batch_size=7, device="cuda", **options)
    graphs = []
    if made.static is not None:
        calls = made.static.calls

        def keep():
            graphs.append(calls())
            return graphs[-1]

        made.static = replace(made.static, calls=keep)
    return made, graphs


def chains(made, temperature=0.0):
    sampling = Sampling(temperature=temperature, seed=3, top_p=0.95, repetition_penalty=1.1)
    found = made.generate(requests(), sampling)
    return {(c.problem, c.chain): (c.token_ids, c.finish, c.trace.kv_reads, c.trace.peak_kv) for c in found}


def model_of(dtype=torch.float32, *, separate=True, **sizes):
    shape = {"heads": 8, "kv_heads": 2, "seed": 2, **sizes}
    model = tiny.with_gates(tiny.model(**shape), window=8, separate=separate)
    # The norm of keys has weights that differ, as in real models. Were they all 1, so would be all keys' norms, and
    # nothing but rounding would say which of them knorm keeps.
    generator = torch.Generator().manual_seed(1)
    for layer in model.model.layers:
        weight = layer.self_attn.k_norm.weight
        weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
    return DMC.prepare(model, 1).to("cuda", dtype)


def check_chains(found, expected, graphs, spare=0):
    """Fails if more than ``spare`` chains differ, and says where they begin to and what had been recorded."""
    assert sorted(found) == sorted(expected)
    places = {}
    for key, (tokens, *costs) in expected.items():
        if found[key] != expected[key]:
            pairs = enumerate(zip(tokens, found[key][0], strict=False))
            first = next((at for at, (one, other) in pairs if one != other), min(len(tokens), len(found[key][0])))
            places[key] = f"token {first} of {len(tokens)}, costs {found[key][1:]} for {tuple(costs)}"
    recorded = [sorted(map(str, calls._graphs)) for calls in graphs]
    assert len(places) <= spare, f"{len(places)} of {len(expected)} differ: {places}; recorded: {recorded}"


@pytest.fixture
def no_capture_fails():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA graphs")  # a capture that fails only warns
        yield


@pytest.mark.usefixtures("no_capture_fails")
@pytest.mark.parametrize("name", [*METHODS, "dms, borrowed"])
def test_graphs_change_no_chain(name):
    name, _, variant = name.partition(", ")
    model, method = model_of(separate=not variant), methods.create(name, **METHODS[name])
    made, graphs = engine(model, method)
    launched, _ = engine(model, method)  # the same kernels, one by one
    launched.static = replace(launched.static, calls=DirectCalls)
    of_slabs, _ = engine(model, method, cuda_graphs=False)
    for temperature in (0.0, 0.8):
        found = chains(made, temperature)
        check_chains(found, chains(launched, temperature), graphs)
        check_chains(found, chains(of_slabs, temperature), graphs, spare=1)  # a near-tie may fall either way
        assert {key[0] for key in graphs[-1]._graphs} == {"decode", "draw"}


@pytest.mark.usefixtures("no_capture_fails")
def test_tensors_of_graphs_that_are_forgotten_live_on():
    """As those that a state keeps of a step: their memory is not used again, and capturing goes on."""
    device = torch.device("cuda")
    graphs, number, kept = CudaGraphs(device), torch.zeros(1000, device=device), []

    def add():
        kept.append(number + 1)
        return number.copy_(kept[-1])

    for _ in range(3):
        for _ in range(4):
            result = graphs.run(("add", 1), add)
        assert len(graphs._graphs) == 1
        graphs.forget()
    assert result.eq(12).all()
    # Of each turn: one call was direct, and one was captured and repeated three times.
    assert [int(tensor[0]) for tensor in kept] == [1, 4, 5, 8, 9, 12]
    assert all(tensor.eq(tensor[0]).all() for tensor in kept)


@pytest.mark.usefixtures("no_capture_fails")
def test_batches_in_turns():
    """Two engines with a model in common take turns, and one of them ends and is dropped before the other."""
    model, sampling = model_of(), Sampling(temperature=0.0)
    expected = {}
    for name in ("window", "tova"):
        method = methods.create(name, **METHODS[name])
        made, _ = engine(model, method)
        made.static = replace(made.static, calls=DirectCalls)
        expected[name] = {(c.problem, c.chain): c.token_ids for c in made.generate(requests(), sampling)}
    first, second = (engine(model, methods.create(name, **METHODS[name]))[0] for name in ("window", "tova"))
    found = {"window": {}, "tova": {}}
    longer = second.generate(requests(), sampling)
    for chain in first.generate(requests()[:8], sampling):
        found["window"][chain.problem, chain.chain] = chain.token_ids
        other = next(longer)
        found["tova"][other.problem, other.chain] = other.token_ids
    del first
    gc.collect()
    torch.cuda.empty_cache()
    torch.full((64, 2**20), float("nan"), device="cuda")  # over whatever is free now
    found["tova"] |= {(c.problem, c.chain): c.token_ids for c in longer}
    assert found["tova"] == expected["tova"]
    assert found["window"] == {key: expected["window"][key] for key in found["window"]}
    assert len(found["window"]) == 8


@pytest.mark.parametrize("name", ["vanilla", "dms", "tova", "quest"])
def test_graphs_in_bfloat16(name):
    """Heads of 128, groups of 6: costs hold exactly where they follow from lengths, tokens but for rounding."""
    model = model_of(torch.bfloat16, heads=12, head_dim=128)
    method = methods.create(name, **METHODS[name])
    expected, found = (chains(engine(model, method, cuda_graphs=graphs)[0]) for graphs in (False, True))
    begin = sum(found[key][0][:4] == expected[key][0][:4] for key in expected)
    assert begin >= len(expected) * 0.7
    if name in ("vanilla", "tova"):
        assert all(found[key][2:] == expected[key][2:] for key in expected if found[key][1] == expected[key][1])


def test_steps_wait_for_nothing(monkeypatch):
    calls = StaticStep.run

    def strict(self, key, function):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return calls(self, key, function)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for name in METHODS:
        made, _ = engine(model_of(), methods.create(name, **METHODS[name]))
        made.static = replace(made.static, calls=DirectCalls)
        chains(made)  # compile everything first
        with monkeypatch.context() as patch:
            patch.setattr(StaticStep, "run", strict)
            assert len(chains(made, 0.8)) == len(requests())


def test_a_step_that_cannot_be_captured_is_launched_kernel_by_kernel():
    model = model_of()
    expected = chains(engine(model, methods.create("vanilla", cr=1), cuda_graphs=False)[0])
    made, graphs = engine(model, Waiting())
    with pytest.warns(UserWarning, match="the decode part of steps is not captured"):
        found = chains(made)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    check_chains(found, expected, graphs, spare=1)
    assert {key[0] for key in graphs[-1]._graphs} == {"draw"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the next batch does not try again
        check_chains(chains(made), expected, graphs, spare=1)
    assert {key[0] for key in graphs[-1]._graphs} == {"draw"}


def test_a_step_that_depends_on_python_goes_wrong():
    """The control of these tests: a graph repeats what Python computed while it was captured."""
    model = model_of()
    expected = chains(engine(model, Counting(), cuda_graphs=False)[0])
    assert chains(engine(model, Counting())[0]) != expected


def test_a_cache_in_another_type_takes_no_graphs():
    made, _ = engine(model_of(), methods.create("vanilla", cr=1), kv_dtype="fp8")
    assert made.static is None
    (chain,) = made.generate([Request("p", 0, (1, 2, 3), 5)], Sampling(temperature=0.0))
    assert len(chain.token_ids) == 5
