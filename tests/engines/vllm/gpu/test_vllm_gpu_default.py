"""On a GPU only: the engine as `hyperscale run` starts it, beside eager steps; steered chains and DMC by both."""

from dataclasses import replace

import chain_replay
import pytest
import torch
from vllm_engines import (
    EAGER,
    EAGER_SPARED,
    GRAPHS_SPARED,
    GREEDY,
    needs_vllm,
    requests,
    same,
    torch_chains,
    torch_engine,
    vllm_chains,
    write_by_layer,
    write_merging,
)

from hyperscale import methods
from hyperscale.engines.base import Sampling, Steering
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = [
    needs_vllm,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_default_engine():
    """In a process of its own, asynchronous scheduling, graphs, memory found by vLLM: as `hyperscale run` starts it."""
    found = vllm_chains("dms8", "dms", 8, device="cuda", gpu_memory_utilization=0.5)
    same(torch_chains("dms8", "dms", 8), found, name="dms8", method="dms")
    chain_replay.hold(torch_engine("dms8", "dms", 8), requests(), found, spared=GRAPHS_SPARED)


STEERED = Sampling(temperature=0, steering=Steering(extend=2, word="\n n03:", answer=8), marks=(" D)", "!"))
STEERED_HOW = {
    "eager": {**EAGER, "max_num_batched_tokens": 24},
    # Asynchronous scheduling and graphs. The cache has a size, so that others may be at work on the card.
    "default": {"device": "cuda", "gpu_memory_utilization": 0.3, "kv_cache_memory_bytes": 1 << 28},
}


@pytest.mark.parametrize(("name", "method", "cr"), [("dms8", "dms", 8), ("base", "tova", 4), ("base", "vanilla", 1)])
@pytest.mark.parametrize("how", STEERED_HOW)
def test_steered_chains_equal_torch(name, method, cr, how):
    """Words in place of ends of thinking, and a forced answer at every cut: tokens, costs and branches."""
    wanted = torch_chains(name, method, cr, sampling=STEERED)
    found = vllm_chains(name, method, cr, sampling=STEERED, **STEERED_HOW[how])

    def told(chain):
        fields = ("at", "token_ids", "text", "finish", "inserted", "kv_reads", "peak_kv")
        return chain.token_ids, [[getattr(branch, field) for field in fields] for branch in chain.branches]

    alike = {problem: chain for problem, chain in wanted.items() if told(found[problem]) == told(chain)}
    assert len(alike) >= (len(wanted) - 1 if how == "eager" else len(wanted) / 2)
    same(alike, {problem: found[problem] for problem in alike})
    assert any(chain.trace.inserted[-1] for chain in alike.values())
    spared = EAGER_SPARED if how == "eager" else GRAPHS_SPARED
    chain_replay.hold_steered(torch_engine(name, method, cr), requests(), STEERED, found, spared=spared)


@pytest.mark.parametrize("how", STEERED_HOW)
def test_one_verdict_for_a_layer_equals_torch(how, tmp_path):
    """DMS whose heads evict together: tokens and costs; they are not those of a verdict for each head."""
    folder = tmp_path / "model"
    write_by_layer(folder)
    alike = hold_to_torch(folder, methods.create("dms", cr=8), how)
    by_head = torch_chains("dms8", "dms", 8)
    assert all(chain.trace.kv_reads != by_head[problem].trace.kv_reads for problem, chain in alike.items())


def hold_to_torch(folder, rule, how):
    """Hold what vLLM makes of a checkpoint in a folder to the torch engine's chains; those that are alike."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    reference = TorchEngine(*load_model(folder), rule, batch_size=8)
    wanted = {chain.problem: chain for chain in reference.generate(requests(), GREEDY)}
    engine = VllmEngine(str(folder), rule, batch_size=8, **STEERED_HOW[how])
    try:
        found = {chain.problem: chain for chain in engine.generate(requests(), GREEDY)}
    finally:
        engine.close()
    alike = {problem: chain for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids}
    assert len(alike) >= (len(wanted) - 1 if how == "eager" else len(wanted) / 2)
    same(alike, {problem: found[problem] for problem in alike})
    chain_replay.hold(reference, requests(), found, spared=EAGER_SPARED if how == "eager" else GRAPHS_SPARED)
    return alike


@pytest.mark.parametrize("how", STEERED_HOW)
def test_dmc_equals_torch(how, tmp_path):
    """Means made before RoPE, in chunks and decode steps; by default as part of graphs of whole steps."""
    folder = tmp_path / "model"
    write_merging(folder, 1.0, 0.0)
    hold_to_torch(folder, methods.create("dmc", cr=2), how)


def test_drawn_steered_chains_are_reproducible():
    """vLLM draws by itself: the same chains again, and none that repeats its own draws behind a continuation."""
    sampling = replace(STEERED, temperature=1.0, seed=2)
    runs = [vllm_chains("dms8", "dms", 8, sampling=sampling, length=60, **EAGER) for _ in range(2)]
    told = [{p: (c.token_ids, [b.token_ids for b in c.branches]) for p, c in chains.items()} for chains in runs]
    assert sum(told[0][problem] == told[1][problem] for problem in told[0]) >= len(told[0]) - 1
