"""DMC in vLLM: what is merged, the means, chains and costs are the torch engine's, on the built-in model.

There is no built-in retrofit. The base's own neurons decide instead: they merge nearly two tokens of three.
"""

import pytest
from vllm_engines import GREEDY, entry_bytes, needs_vllm, path, requests, same, write_merging
from vllm_occupancy import watch_scheduler

from hyperscale import methods
from hyperscale.engines.base import Sampling, Steering
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import EngineError

pytestmark = [pytest.mark.e2e, needs_vllm]
METHOD = methods.create("dmc", cr=2)
CHUNKED = {"max_num_batched_tokens": 24}
TIGHT = {
    "kv_cache_memory_bytes": 18 * 32 * entry_bytes("base"),
    "max_model_len": 512,
    "scheduler_reserve_full_isl": False,
}
HOW = {"whole prompts": {}, "chunks": CHUNKED, "preempted": {**TIGHT, **CHUNKED}}
DRAWN = Sampling(temperature=0.9, seed=3, steering=Steering(extend=2, word="\n n03:", answer=8), marks=(" D)", "|"))


def torch_chains(folder, sampling):
    model, tokenizer = load_model(folder)
    engine = TorchEngine(model, tokenizer, METHOD, batch_size=8)
    return {chain.problem: chain for chain in engine.generate(requests(), sampling)}


def branches(chain):
    return [(branch.at, branch.token_ids, branch.kv_reads, branch.peak_kv) for branch in chain.branches]


SLOW = [("whole prompts", 1.0), ("whole prompts", 100.0), ("chunks", 1.0), ("preempted", 100.0)]


@pytest.mark.parametrize(
    ("how", "scale"), [("preempted", 1.0), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_dmc_equals_torch(how, scale, tmp_path):
    """Prompts of different lengths; greedy, and drawn with steering; weights of like size, or of 0 and 1."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    folder = tmp_path / "model"
    write_merging(folder, scale, 0.0)
    engine = VllmEngine(str(folder), METHOD, batch_size=8, **HOW[how])
    try:
        seen = watch_scheduler(engine._engine)
        found = [{chain.problem: chain for chain in engine.generate(requests(), kind)} for kind in (GREEDY, DRAWN)]
        assert (seen.preemptions > 0) == (how == "preempted")
        assert seen.blocks[-1] == 0
    finally:
        engine.close()
    for kind, chains in zip((GREEDY, DRAWN), found, strict=True):
        wanted = torch_chains(folder, kind)
        # A decision or a draw may fall the other way by rounding, in one chain.
        alike = {
            problem: chain
            for problem, chain in wanted.items()
            if chains[problem].token_ids == chain.token_ids and branches(chains[problem]) == branches(chain)
        }
        assert len(alike) >= len(wanted) - 1
        same(alike, {problem: chains[problem] for problem in alike})
        for chain, request in ((wanted[request.problem], request) for request in requests()):
            assert chain.trace.peak_kv[-1] < 0.7 * (len(request.prompt_ids) + len(chain.token_ids))
    assert any(chain.branches for chain in found[1].values())


@pytest.mark.slow
def test_tensor_parallelism(tmp_path):
    """Each rank decides for its own heads."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    write_merging(tmp_path / "model", 1.0, 0.0)
    engine = VllmEngine(str(tmp_path / "model"), METHOD, batch_size=8, own_process=True, tensor_parallel_size=2)
    try:
        found = {chain.problem: chain for chain in engine.generate(requests(), GREEDY)}
    finally:
        engine.close()
    wanted = torch_chains(tmp_path / "model", GREEDY)
    alike = {problem: chain for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids}
    assert len(alike) >= len(wanted) - 1
    same(alike, {problem: found[problem] for problem in alike})


def test_controls(tmp_path):
    """Neurons that decide otherwise give other costs, so the comparison above bites."""
    chains = []
    for number, offset in enumerate((0.0, 0.5)):
        write_merging(tmp_path / str(number), 1.0, offset)
        chains.append(torch_chains(tmp_path / str(number), GREEDY))
    assert all(chains[0][problem].trace.kv_reads != chain.trace.kv_reads for problem, chain in chains[1].items())


def test_a_checkpoint_without_its_neurons_is_refused():
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    with pytest.raises(EngineError, match="retrofitted with DMC"):
        VllmEngine(path("base"), METHOD, batch_size=2)
