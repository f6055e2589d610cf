"""Requests, engines and comparisons for the tests that need vLLM."""

import json
import os
import shutil
from functools import cache
from importlib.resources import files

import pytest
import torch
from dense_reference import dms, forward, keep_all

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.vllm import versions
from hyperscale.run import prepare
from hyperscale.run.config import load

needs_vllm = pytest.mark.skipif(
    versions.installed() not in versions.KNOWN,
    reason=f"needs vLLM {' or '.join(versions.KNOWN)} (docs/vllm.md), found {versions.installed()}",
)
GREEDY = Sampling(temperature=0)
WEIGHTS = files("hyperscale") / "mini" / "weights"
LENGTH = 160
# How an engine is started on a GPU where nothing is recorded or compiled.
EAGER = {"device": "cuda", "own_process": False, "enforce_eager": True, "gpu_memory_utilization": 0.3}
EAGER |= {"kv_cache_memory_bytes": 1 << 28}
#: Chains of six that may depart after a decision that nearly ties; kernels round otherwise in graphs of whole steps.
EAGER_SPARED, GRAPHS_SPARED = 1, 2

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")


def path(name):
    return str(WEIGHTS / name)


@cache
def requests(count=2, length=LENGTH):
    """Problems of all built-in benchmarks, of very different prompt lengths."""
    run = prepare.prepare_run(load.make_config({"methods": ["vanilla"], "limit": count}), lambda stage: None)
    problems = [problem for of_task in run.problems.values() for problem in of_task]
    return [Request(problem.request_id, 0, problem.prompt_ids, length, (1, 50, 100)) for problem in problems]


def write_merging(folder, scale, offset):
    """The built-in base as a checkpoint of DMC: its own neurons decide, and merge nearly two tokens of three."""
    shutil.copytree(path("base"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dmc_cr": 2.0, "dmc_alpha_scale": scale, "dmc_initial_alpha_offset": offset}
    (folder / "config.json").write_text(json.dumps(config))


def write_by_layer(folder):
    """The built-in DMS 8x with one verdict for all heads of a layer, which evicts more or less as it would by head."""
    shutil.copytree(path("dms8"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dms_alpha_per": "layer"}))


@cache
def loaded(name):
    return load_model(path(name))


def torch_engine(name, method, cr, params=(), kv_dtype="auto"):
    """The torch engine with a method on a built-in checkpoint, on the CPU in float32."""
    model, tokenizer = loaded(name)
    return TorchEngine(model, tokenizer, methods.create(method, cr=cr, **dict(params)), batch_size=8, kv_dtype=kv_dtype)


@cache
def torch_chains(name, method, cr, params=(), sampling=GREEDY, count=2, length=LENGTH, kv_dtype="auto"):
    """What the torch engine makes of the requests, by problem."""
    engine = torch_engine(name, method, cr, params, kv_dtype)
    return {chain.problem: chain for chain in engine.generate(requests(count, length), sampling)}


def vllm_chains(name, method, cr, params=(), sampling=GREEDY, count=2, length=LENGTH, seen=None, **more):
    """What the vLLM engine makes of them; ``query_reads`` is called with the engine before and after."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    kv_method = methods.create(method, cr=cr, **dict(params))
    engine = VllmEngine(path(name), kv_method, batch_size=more.pop("batch_size", 8), **more)
    try:
        check_after = seen(engine) if seen else None
        chains = {chain.problem: chain for chain in engine.generate(requests(count, length), sampling)}
        if check_after:
            check_after()
    finally:
        engine.close()
    return chains


def steady(name, method, chain, prompt):
    """Whether no decision in a greedy chain is so close that another order of the same sums could turn it."""
    model, _ = loaded(name)
    margins = []
    rule = dms(model, margins) if method == "dms" else keep_all(model.config.num_key_value_heads)
    logits, _, _ = forward(model, [*prompt, *chain.token_ids], rule)
    best = logits[len(prompt) - 1 : -1].topk(2).values
    return min([*margins, float((best[:, 0] - best[:, 1]).min())]) > 1e-3


def same(expected, actual, *, name=None, method=None):
    """Hold vLLM's chains against the torch engine's: tokens, text, ends and costs exactly, log-probabilities nearly."""
    assert set(actual) == set(expected)
    prompts = {request.problem: request.prompt_ids for request in requests()}
    num_compared = 0
    for problem, want in expected.items():
        got = actual[problem]
        is_equal = want.token_ids == got.token_ids and want.trace.kv_reads == got.trace.kv_reads
        if not is_equal and name and not steady(name, method, want, prompts[problem]):
            continue
        num_compared += 1
        assert (want.token_ids, want.text, want.finish) == (got.token_ids, got.text, got.finish), problem
        assert want.logprob == pytest.approx(got.logprob, abs=1e-2), problem
        for field in ("lengths", "kv_reads", "peak_kv", "chars", "inserted", "prefill_kv", "prefill_reads"):
            assert getattr(want.trace, field) == getattr(got.trace, field), f"{field} of {problem}"
        assert got.trace.logprobs == pytest.approx(want.trace.logprobs, abs=1e-2), problem
    assert num_compared >= len(expected) / 2, "too few chains without near ties"


def entry_bytes(name):
    """Bytes of one (key, value) pair of all layers and heads in float32."""
    c = loaded(name)[0].config
    return c.num_hidden_layers * c.num_key_value_heads * 2 * c.head_dim * torch.float32.itemsize
