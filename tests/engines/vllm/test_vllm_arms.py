"""One vLLM process for the methods that share weights: each gives what an engine of its own gives."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commandline import caller
from vllm_engines import GREEDY, needs_vllm, path, requests, same, torch_chains

from hyperscale import methods, results
from hyperscale.engines.provider import EngineSpec
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.arms import ArmsConfig, read_arms
from hyperscale.engines.vllm.harness.provider import VllmProvider
from hyperscale.engines.vllm.scheduler.costs import CostRequest
from hyperscale.errors import EngineError
from hyperscale.run import prepare
from hyperscale.run.config import load
from hyperscale.run.engines.processes import spec_of, start_notes

BASE = SimpleNamespace()  # the configuration of a checkpoint without gates
ARMS = {
    "window": ("window", 3, (("recent", 3),)),
    "tova": ("tova", 4, ()),
    "window at another ratio": ("window", 6, (("recent", 3), ("rule", "fixed"))),
    "random": ("random", 3, (("recent", 3),)),
}


def made(name, cr, params):
    return methods.create(name, cr=cr, **dict(params))


def started(own_process=False):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    arms = [made(*arm) for arm in ARMS.values()]
    return VllmEngine(path("base"), arms[0], methods=arms, batch_size=8, own_process=own_process)


@pytest.mark.e2e
@needs_vllm
def test_arms_in_turn_equal_engines_of_their_own():
    engine = started()
    try:
        # The first arm ends in the middle of its chains, as a run does that is interrupted.
        unfinished = engine.generate(requests(1, 60), GREEDY)
        next(unfinished)
        unfinished.close()
        found = []
        for name in ("tova", "window at another ratio", "random", "window", "tova"):  # back again: nothing is left
            engine.switch(made(*ARMS[name]))
            chains = {chain.problem: chain for chain in engine.generate(requests(1, 120), GREEDY)}
            method, cr, params = ARMS[name]
            same(torch_chains("base", method, cr, params, count=1, length=120), chains, name="base", method="vanilla")
            found.append({problem: (chain.token_ids, chain.trace.kv_reads) for problem, chain in chains.items()})
            scheduler = engine._engine.engine_core.engine_core.scheduler
            assert scheduler.connector.channel._allocator._options.method == method
    finally:
        engine.close()
    assert found[-1] == found[0]
    assert len({json.dumps(chains, sort_keys=True) for chains in found}) == len(ARMS)


@pytest.mark.e2e
@needs_vllm
def test_a_process_killed_in_the_second_arm_is_an_error_and_ends_no_one_else():
    engine = started(own_process=True)
    try:
        assert len(list(engine.generate(requests(1, 8), GREEDY))) == len(requests(1, 8))
        engine.switch(made(*ARMS["tova"]))
        wanted = torch_chains("base", *ARMS["tova"], count=3, length=120)
        assert len(wanted) > 8  # one waits here for a place in the batch, so that the process cannot have done all
        chains = engine.generate(requests(3, 120), GREEDY)
        first = next(chains)
        assert wanted[first.problem].token_ids == first.token_ids
        (process,) = engine._engine.engine_core.resources.engine_manager.processes
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="vLLM stopped"):
            list(chains)
        process.join()
        with pytest.raises(EngineError, match="vLLM stopped"):  # and not a wait without end
            engine.switch(made(*ARMS["window"]))
    finally:
        engine.close()


RUN = ("run", "--model", "mini", "--task", "mini_aime", "--limit", "1", "--length", "48", "--budget", "all")


@pytest.mark.e2e
@needs_vllm
def test_a_run_starts_one_process_a_checkpoint(monkeypatch, capsys, tmp_path):
    from hyperscale.engines.vllm.harness import engine

    starts, start = [], engine.start_engine
    monkeypatch.setattr(engine, "start_engine", lambda args, *rest, **more: starts.append(args) or start(args, *rest))
    arguments = (*RUN, "--method", "window,dms,tova", "--cr", "4,8", "--method-param", "window.recent=3")
    call = caller(monkeypatch, capsys, tmp_path)
    for name in ("vllm", "torch"):
        code, _, err = call(*arguments, "--engine", name, "--out", tmp_path / name)
        assert code == 0, err
    # window and tova at both ratios on the base model; DMS has a checkpoint for each ratio.
    assert [Path(args["model"]).name for args in starts] == ["base", "dms4", "dms8"]
    assert len(starts[0]["additional_config"]["hyperscale"]["arms"]) == 4
    ours, theirs = ({s.key: s for s in results.read(tmp_path / name)[0].samples} for name in ("vllm", "torch"))
    assert set(ours) == set(theirs)
    alike = [key for key, sample in ours.items() if sample.text == theirs[key].text]
    assert len(alike) >= len(ours) - 2  # a near tie may turn in another order of the same sums
    for key in alike:
        for ours_cut, their_cut in zip(ours[key].cuts, theirs[key].cuts, strict=True):
            assert (ours_cut.kv_reads, ours_cut.peak_kv) == (their_cut.kv_reads, their_cut.peak_kv)


def test_methods_on_the_same_weights_share_a_process():
    def key(name, cr, checkpoint="x", **params):
        return VllmProvider().process_key(EngineSpec(checkpoint, methods.create(name, cr=cr, **params)))

    assert key("window", 4) == key("window", 8) == key("tova", 4, per="head") == key("snapkv", 2)
    assert key("window", 4) != key("window", 4, checkpoint="y")
    assert key("dms", 4) == key("dms", 8)
    assert key("dms", 4) != key("dms", 4, format="fastdms")  # other arithmetic in the compiled model
    assert len({key("dms", 4), key("window", 4), key("vanilla", 1)}) == 3


def test_the_plan_says_what_vllm_prepares(monkeypatch):
    """By the steps of all arms that share a process; only on a GPU, where there is something to prepare."""
    monkeypatch.setattr(versions, "installed", lambda: versions.KNOWN[0])
    settings = {"engine": "vllm", "methods": ["window", "tova", "vanilla"], "crs": [4, 8], "tasks": ["mini_aime"]}
    settings |= {"limit": 3, "lengths": [256], "budget": "tokens=10K", "batch_size": 4}
    run = prepare.prepare_run(load.make_config(settings), lambda stage: None)
    assert start_notes(run) == []

    def notes(**update):
        return start_notes(replace(run, config=run.config.model_copy(update={"device": "cuda", **update})))

    widths = {len(run.plan.chains(arm, "mini_aime")) for arm in run.arms}
    assert widths == {8}  # 3 problems, 8 chains: 6 batches of 4 for each arm
    names = ["window 4×, window 8×, tova 4×, tova 8×", "vanilla"]
    assert notes() == [
        f"{names[0]}: vLLM records CUDA graphs and compiles nothing for at most {4 * 6 * 256:,} steps "
        "(--compilation auto)",
        f"{names[1]}: vLLM records and compiles nothing for at most {6 * 256:,} steps (--compilation auto)",
    ]
    assert all("records CUDA graphs and compiles for" in note for note in notes(seeds=tuple(range(99))))
    assert all("CUDA graphs and compiles nothing" in note for note in notes(compilation="graphs"))
    # A pilot started an engine when nothing was planned yet: that is the one that runs.
    on_gpu = replace(run, config=run.config.model_copy(update={"device": "cuda"}))
    _, started = spec_of(on_gpu, run.arms[0])
    kept = start_notes(on_gpu, started)
    assert kept == [f"{names[0]}: vLLM records CUDA graphs and compiles (--compilation auto)", notes()[1]]


def test_compiled_code_is_found_by_what_is_compiled():
    def hashed(**options):
        return ArmsConfig({"hyperscale": options}).compute_hash()

    assert hashed(method="window", cr=4) == hashed(method="tova", cr=8, parameters={"per": "head"}, arms=[{}])
    assert hashed(method="dms", cr=4) == hashed(method="dms", cr=8, window=3) == hashed()
    assert len({hashed(method=name, cr=4) for name in ("window", "dms", "dmc")}) == 3
    assert hashed(method="hashed", cr=4) != hashed(method="hashed", cr=8)


@pytest.mark.parametrize("arms", [[], 3, {"method": "none"}])
def test_arms_are_a_list_of_options(arms):
    with pytest.raises(EngineError, match="arms must be a list of options"):
        read_arms({"hyperscale": {"method": "none", "arms": arms}}, BASE)


@needs_vllm
def test_every_arm_has_the_cache_that_was_asked_for():
    from hyperscale.engines.vllm.plugin.configure import _take_over_fp8

    arms = [{"method": "window", "cr": 4}, {"method": "window", "cr": 8}]
    cache = SimpleNamespace(cache_dtype="fp8")
    config = SimpleNamespace(
        cache_config=cache, additional_config=ArmsConfig({"hyperscale": {**arms[0], "arms": arms}})
    )
    _take_over_fp8(config)
    read = read_arms(config.additional_config, BASE)
    assert [(options.cr, options.kv_dtype) for options in read] == [(4, "fp8"), (8, "fp8")]


def test_arms_are_read_like_options():
    arms = [{"method": "window", "cr": 4}, {"method": "window", "cr": 8}]
    read = read_arms({"hyperscale": {**arms[0], "arms": arms}}, BASE)
    assert [options.cr for options in read] == [4, 8]
    assert read_arms({"hyperscale": arms[1]}, BASE) == read[1:]
    with pytest.raises(EngineError, match="needs a cr"):
        read_arms({"hyperscale": {**arms[0], "arms": [arms[0], {"method": "window"}]}}, BASE)


@pytest.mark.parametrize("arm", [2, -1, True, "1", None])
def test_an_arm_that_there_is_not_is_ignored(arm):
    read = CostRequest.read({"arm": arm}, arms=2)
    assert (read.arm, read.ignored_names) == (0, ("arm",))
    assert CostRequest.read({"arm": 1}, arms=2).arm == 1
