"""Longer thinking and forced answers in vLLM: chains, branches and costs are the torch engine's, on the built-in model.

It thinks for longer than these chains last. So other tokens of its reasoning stand for the end of its thinking.
"""

from dataclasses import replace

import pytest
from vllm_engines import entry_bytes, needs_vllm, path, requests, same, torch_chains
from vllm_occupancy import watch_scheduler

from hyperscale import methods
from hyperscale.engines.base import Sampling, Steering

pytestmark = [pytest.mark.e2e, needs_vllm]
CHUNKED = {"max_num_batched_tokens": 24}
WORD = "\n n03:"  # three tokens
BOTH = Steering(extend=2, word=WORD, answer=8)
# Ends of one token, and of two, behind which the thinking is opened again.
ONE, TWO = (" D)", "!"), (" D)", "!9")
SAMPLINGS = {
    "answers": Sampling(temperature=0, steering=Steering(answer=8)),
    "both": Sampling(temperature=0, steering=BOTH, marks=ONE),
    "two tokens": Sampling(temperature=0, steering=BOTH, marks=TWO, stop=("8",), stop_in_answer=True),
    "stopped": Sampling(temperature=0, marks=TWO, stop=("8",), stop_in_answer=True),  # as lm-eval asks for
    "drawn": Sampling(temperature=0.9, seed=3, repetition_penalty=1.02, steering=BOTH, marks=(" D)", "|")),
}


def tight(name):
    """So little memory that requests are preempted."""
    return {
        "kv_cache_memory_bytes": 18 * 32 * entry_bytes(name),
        "max_model_len": 512,
        "scheduler_reserve_full_isl": False,
    }


def run(name, method, cr, params, samplings, watch=None, **more):
    """Chains by sampling, of one engine, and the number of preemptions."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    kv_method = methods.create(method, cr=cr, **dict(params))
    engine = VllmEngine(path(name), kv_method, batch_size=more.pop("batch_size", 8), **more)
    try:
        seen = watch_scheduler(engine._engine) if not more.get("own_process") else None
        found = {
            case: {chain.problem: chain for chain in engine.generate(requests(), SAMPLINGS[case], watch)}
            for case in samplings
        }
        assert seen is None or not samplings or seen.blocks[-1] == 0
    finally:
        engine.close()
    return found, seen.preemptions if seen else 0


def branches(chain):
    """All that a branch says but for how long it took, its log-probability apart."""
    fields = ("at", "token_ids", "text", "finish", "inserted", "kv_reads", "peak_kv")
    return [[getattr(branch, field) for field in fields] for branch in chain.branches]


def compare(wanted, found, spared=0):
    """Hold chains and branches against the torch engine's; of so many a draw or a tie may fall the other way."""
    equal = [
        problem
        for problem, chain in wanted.items()
        if found[problem].token_ids == chain.token_ids and branches(found[problem]) == branches(chain)
    ]
    assert len(equal) >= len(wanted) - spared
    for problem, chain in wanted.items():  # the prompt is there before anything is steered
        assert found[problem].trace.prefill_kv == chain.trace.prefill_kv
        assert found[problem].trace.prefill_reads == chain.trace.prefill_reads
    same({p: wanted[p] for p in equal}, {p: found[p] for p in equal})
    for problem in equal:
        logprobs = [branch.logprob for branch in wanted[problem].branches]
        assert [branch.logprob for branch in found[problem].branches] == pytest.approx(logprobs, abs=1e-2)


CASES = {
    "vanilla": ("base", "vanilla", 1, (), {}, tuple(SAMPLINGS)),
    "dms in chunks": ("dms8", "dms", 8, (), CHUNKED, ("both", "drawn")),
    "dms preempted": ("dms8", "dms", 8, (), "tight", ("answers", "drawn")),
    # By their own state: continuations are processed a token a step.
    "tova": ("base", "tova", 4, (), {}, ("two tokens", "drawn")),
    "snapkv": ("base", "snapkv", 4, (("window", 4), ("pin_prompt", False), ("rule", "fixed")), {}, ("both",)),
    "quest": ("base", "quest", 4, (("dense_layers", 1),), CHUNKED, ("answers",)),
    "window of a fixed budget": ("base", "window", 4, (("rule", "fixed"),), CHUNKED, ("both",)),
    "random": ("base", "random", 4, (), {}, ("drawn",)),
}
QUICK = ("vanilla", "dms preempted", "tova")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_steered_chains_equal_torch(case):
    name, method, cr, params, how, samplings = CASES[case]
    found, preemptions = run(name, method, cr, params, samplings, **(tight(name) if how == "tight" else how))
    assert (preemptions > 0) == (how == "tight")
    for kind in samplings:
        wanted = torch_chains(name, method, cr, params, sampling=SAMPLINGS[kind])
        compare(wanted, found[kind], spared=0 if kind in ("answers", "stopped") and not how else 1)
        assert any(chain.finish == "stop" for chain in wanted.values()) or kind != "stopped"
        assert any(chain.branches for chain in wanted.values()) == bool(SAMPLINGS[kind].steering.answer)
        if SAMPLINGS[kind].steering.extend:
            assert any(chain.trace.inserted[-1] for chain in wanted.values())


def test_in_a_process_of_its_own_watched():
    """Asynchronous scheduling may be ahead by a token of what the harness takes back."""
    glimpses = []
    found, _ = run("dms8", "dms", 8, (), ("both",), glimpses.append, own_process=True, batch_size=3)
    wanted = torch_chains("dms8", "dms", 8, sampling=SAMPLINGS["both"])
    compare(wanted, found["both"], spared=1)
    for problem, chain in found["both"].items():
        tokens = [glimpse.tokens for glimpse in glimpses if glimpse.request.problem == problem]
        assert len(tokens) == len(chain.token_ids) + sum(len(branch.token_ids) for branch in chain.branches)


def test_controls():
    """The comparison bites: another word, or another number of answer's tokens, is seen."""
    wanted = torch_chains("base", "vanilla", 1, sampling=SAMPLINGS["both"])
    for steering in (replace(BOTH, word="\n n04:"), replace(BOTH, answer=7), replace(BOTH, extend=1)):
        other = torch_chains("base", "vanilla", 1, sampling=replace(SAMPLINGS["both"], steering=steering))
        with pytest.raises(AssertionError):
            compare(wanted, other, spared=1)
