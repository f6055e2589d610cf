"""The vLLM engine against the torch engine and stock vLLM, on the built-in model: same chains, same costs."""

import os
import signal
from pathlib import Path

import pytest
import scripted
from vllm_engines import (
    GREEDY,
    LENGTH,
    entry_bytes,
    loaded,
    needs_vllm,
    path,
    requests,
    same,
    torch_chains,
    vllm_chains,
)
from vllm_occupancy import watch_scheduler

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import EngineError, ModelError

pytestmark = [pytest.mark.e2e, needs_vllm]
CHUNKED = {"max_num_batched_tokens": 24}


def tight(name, blocks=18):
    """So little memory, and so little caution, that requests are preempted."""
    return {
        "kv_cache_memory_bytes": blocks * 32 * entry_bytes(name),
        "max_model_len": 512,
        "scheduler_reserve_full_isl": False,
    }


def preempting(engine):
    """Make sure that a run preempted, and that all blocks are free after it."""
    seen = watch_scheduler(engine._engine)

    def check():
        assert seen.preemptions > 0
        assert seen.blocks[-1] == 0

    return check


def test_stock_equals_torch():
    same(torch_chains("base", "vanilla", 1), vllm_chains("base", "vanilla", 1), name="base", method="vanilla")


def test_eviction_off_equals_stock():
    from hyperscale.engines.vllm.families import architecture

    mine = {"hf_overrides": {"architectures": [architecture("qwen3")]}, "options": {"method": "none"}}
    stock = vllm_chains("base", "vanilla", 1)
    for more in ({}, CHUNKED):
        ours = vllm_chains("base", "vanilla", 1, **mine, **more)
        assert {p: c.token_ids for p, c in ours.items()} == {p: c.token_ids for p, c in stock.items()}
        for problem, chain in ours.items():
            assert chain.logprob == pytest.approx(stock[problem].logprob, abs=1e-3)


@pytest.mark.parametrize(
    ("cr", "how"),
    [
        (8, "whole prompts"),
        (8, "chunks"),
        (8, "preempted"),
        (4, "chunks"),
        pytest.param(4, "whole prompts", marks=pytest.mark.slow),
        pytest.param(4, "preempted", marks=pytest.mark.slow),
    ],
)
def test_dms_equals_torch(cr, how):
    name = f"dms{cr}"
    more = {"whole prompts": {}, "chunks": CHUNKED, "preempted": {**tight(name), "seen": preempting}}[how]
    same(torch_chains(name, "dms", cr), vllm_chains(name, "dms", cr, **more), name=name, method="dms")


@pytest.mark.parametrize("how", ["chunks", "preempted"])
def test_dms_in_the_other_format_equals_torch(how):
    """Verdicts on the token itself, as in FastDMS's format: across chunks, and where a request starts anew."""
    params = (("format", "fastdms"),)
    more = {"chunks": CHUNKED, "preempted": {**tight("dms8"), "seen": preempting}}[how]
    wanted = torch_chains("dms8", "dms", 8, params)
    assert any(torch_chains("dms8", "dms", 8)[p].trace.kv_reads != c.trace.kv_reads for p, c in wanted.items())
    same(wanted, vllm_chains("dms8", "dms", 8, params, **more))


BUDGETS = [("rule", "proportional"), ("rule", "fixed"), ("budget", 70)]
#: By default each budget meets both methods and both ways, but not each of the four pairs.
PINNED = [
    pytest.param(method, budget, how, marks=() if (method == "window") == is_quick else pytest.mark.slow)
    for method in ("window", "random")
    for number, budget in enumerate(BUDGETS)
    for how, is_quick in (("whole prompts", number != 1), ("preempted", number == 1))
]


@pytest.mark.parametrize(("method", "budget", "how"), PINNED)
def test_pinned_rules_equal_torch(method, budget, how):
    params = (("recent", 3), budget)
    more = {"whole prompts": {}, "preempted": {**tight("base", 22), **CHUNKED, "seen": preempting}}[how]
    wanted = torch_chains("base", method, 3, params)
    same(wanted, vllm_chains("base", method, 3, params, **more), name="base", method="vanilla")


PLAIN = {"top_p": 0.95}
SHAPED = {"top_k": 5, "top_p": 0.97, "min_p": 0.02, "repetition_penalty": 1.2}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("base", PLAIN, id="base-plain"),
        pytest.param("dms8", SHAPED, id="dms8-shaped"),
        pytest.param("base", SHAPED, id="base-shaped", marks=pytest.mark.slow),
        pytest.param("dms8", PLAIN, id="dms8-plain", marks=pytest.mark.slow),
    ],
)
def test_drawn_chains_equal_torch(name, shape):
    method, cr = ("vanilla", 1) if name == "base" else ("dms", 8)
    sampling = Sampling(temperature=0.8, seed=3, **shape)
    wanted = torch_chains(name, method, cr, sampling=sampling)
    found = vllm_chains(name, method, cr, sampling=sampling, **CHUNKED)
    # A draw may fall on the other side of a boundary by rounding; that one of all chains does is unlikely.
    assert sum(found[p].token_ids == chain.token_ids for p, chain in wanted.items()) >= len(wanted) - 1
    alike = {p: chain for p, chain in wanted.items() if found[p].token_ids == chain.token_ids}
    same(alike, {p: found[p] for p in alike})


def test_another_batch_size_gives_the_same_drawn_chains():
    sampling = Sampling(temperature=1.0, seed=1)
    chains = [vllm_chains("dms8", "dms", 8, sampling=sampling, length=60, batch_size=n) for n in (2, 8)]
    ids = [{problem: chain.token_ids for problem, chain in found.items()} for found in chains]
    assert sum(ids[0][problem] == ids[1][problem] for problem in ids[0]) >= len(ids[0]) - 1


def test_one_chain_at_a_time():
    wanted = torch_chains("dms8", "dms", 8, count=1, length=40)
    same(wanted, vllm_chains("dms8", "dms", 8, count=1, length=40, batch_size=1))


def test_stop_strings():
    free = torch_chains("dms8", "dms", 8)
    text = next(iter(free.values())).text
    sampling = Sampling(temperature=0, stop=("never there", text[60:64]))
    wanted = torch_chains("dms8", "dms", 8, sampling=sampling)
    assert next(iter(wanted.values())).finish == "stop"
    same(wanted, vllm_chains("dms8", "dms", 8, sampling=sampling), name="dms8", method="dms")


@pytest.mark.parametrize("stop", [(), ("never",)], ids=["by vLLM", "by the harness"])
def test_ends_that_are_ignored(stop):
    """Also where the harness looks at every token, for stop strings of an answer."""
    sampling = Sampling(temperature=0, ignore_ends=True, stop=stop, stop_in_answer=True)
    wanted = torch_chains("dms8", "dms", 8, sampling=sampling, count=1, length=420)
    assert {chain.finish for chain in wanted.values()} == {"length"}
    end = loaded("dms8")[1].eos_token_id
    assert any(end in chain.token_ids[:-1] for chain in wanted.values())
    found = vllm_chains("dms8", "dms", 8, sampling=sampling, count=1, length=420)
    same(wanted, found, name="dms8", method="dms")


def test_watching_changes_nothing():
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    glimpses = []
    engine = VllmEngine(path("dms8"), methods.create("dms", cr=8), batch_size=8)
    try:
        found = {chain.problem: chain for chain in engine.generate(requests(), GREEDY, glimpses.append)}
    finally:
        engine.close()
    same(torch_chains("dms8", "dms", 8), found, name="dms8", method="dms")
    for problem, chain in found.items():
        mine = [glimpse for glimpse in glimpses if glimpse.request.problem == problem]
        assert [glimpse.tokens for glimpse in mine] == list(range(1, len(chain.token_ids) + 1))
        assert sum(glimpse.entries for glimpse in mine[1:]) == pytest.approx(chain.trace.kv_reads[-1])
        assert max(glimpse.entries for glimpse in mine) == pytest.approx(chain.trace.peak_kv[-1])
        assert mine[-1].text() == chain.text


def test_weights_that_are_not_there(tmp_path):
    import shutil

    shutil.copytree(path("dms8"), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    # Before vLLM starts, as for the torch engine.
    with pytest.raises(ModelError, match="has no weights"):
        VllmEngine(str(tmp_path / "model"), methods.create("dms", cr=8), batch_size=2)


def test_in_a_process_of_its_own_whose_death_is_an_error():
    """As the system kills one when memory runs out: vLLM's client would wait for it forever."""
    from multiprocessing import active_children

    from hyperscale.engines.vllm.harness.engine import VllmEngine

    engine = VllmEngine(path("dms8"), methods.create("dms", cr=8), batch_size=8, own_process=True)
    try:
        found = {chain.problem: chain for chain in engine.generate(requests(length=40), GREEDY)}
        same(torch_chains("dms8", "dms", 8, length=40), found)
        asked = requests(4)
        assert len(asked) > 8  # those that do not fit in the batch wait here, so that the process cannot have done all
        chains = engine.generate(asked, GREEDY)
        next(chains)
        for process in active_children():
            process.kill()
        with pytest.raises(EngineError, match=r"vLLM stopped .its process ended.* finished chains are kept"):
            list(chains)
    finally:
        engine.close()


ORPHANED = """
from multiprocessing import active_children
from hyperscale import methods
from hyperscale.engines.vllm.harness.engine import VllmEngine

if __name__ == "__main__":
    engine = VllmEngine({path!r}, methods.create("dms", cr=8), batch_size=2, own_process=True)
    print(*(process.pid for process in active_children()), flush=True)
    input()
"""


def test_the_process_ends_with_a_harness_that_is_killed(tmp_path):
    """Else it keeps the memory that the run needs when it is resumed."""
    import subprocess
    import sys
    import time

    script = tmp_path / "harness.py"
    script.write_text(ORPHANED.format(path=path("dms8")))
    harness = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in harness.stdout.readline().split()]
    assert pids
    harness.kill()
    harness.wait()  # not for the end of its output, which vLLM's process would hold open
    for _ in range(300):
        if not any(running(pid) for pid in pids):
            return
        time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    pytest.fail("vLLM's process outlives the harness")


def running(pid):
    """Whether a process is there and more than a corpse that nobody has buried."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_second_engine_waits_for_the_end_of_the_first():
    """vLLM keeps its connector once a process: the second would run by the first one's method."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    engine = VllmEngine(path("base"), methods.create("tova", cr=2), batch_size=8)
    try:
        for own_process in (False, True):
            with pytest.raises(EngineError, match=r"close the first one \(engine.close\(\)\)"):
                vllm_chains("base", "tova", 8, own_process=own_process)
        found = {chain.problem: chain for chain in engine.generate(requests(1, 40), GREEDY)}
    finally:
        engine.close()
    same(torch_chains("base", "tova", 2, count=1, length=40), found)
    same(torch_chains("base", "tova", 8, count=1, length=40), vllm_chains("base", "tova", 8, count=1, length=40))


def test_an_engine_that_does_not_start_leaves_no_method_behind(monkeypatch):
    from vllm.v1.worker.cpu_worker import CPUWorker

    def fail(worker):
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(CPUWorker, "compile_or_warm_up_model", fail)
        with pytest.raises(EngineError, match="does not start: no room"):
            vllm_chains("base", "tova", 2)
    same(torch_chains("base", "tova", 8, count=1, length=40), vllm_chains("base", "tova", 8, count=1, length=40))


def test_its_own_process_does_not_start():
    with pytest.raises(EngineError, match="printed why above; if it lacks memory, choose a smaller --gpu-memory"):
        vllm_chains("dms8", "dms", 8, own_process=True, kv_cache_memory_bytes=1 << 10)


def test_room_for_the_longest_request_is_enough():
    most = max(len(request.prompt_ids) for request in requests()) + LENGTH
    blocks = -(-most // 32) + 2  # one that each request has in advance, and vLLM's null block
    more = {"kv_cache_memory_bytes": blocks * 32 * entry_bytes("dms8")}
    with pytest.raises(EngineError, match=r"does not start: .*; --engine torch does without it"):
        vllm_chains("dms8", "dms", 8, **more)
    assert set(vllm_chains("dms8", "dms", 8, **more, max_tokens=most)) == {request.problem for request in requests()}


def test_tensor_parallelism():
    """Of short chains: two ranks on one core wait for each other at every layer."""
    found = vllm_chains("dms4", "dms", 4, length=16, own_process=True, tensor_parallel_size=2)
    same(torch_chains("dms4", "dms", 4, length=16), found)


def test_controls():
    """The comparisons above bite: a window that is one token longer gives other costs."""
    wanted = torch_chains("dms8", "dms", 8)
    window = 1 + loaded_window("dms8")
    found = vllm_chains("dms8", "dms", 8, options={"window": window})
    assert all(found[p].trace.kv_reads != chain.trace.kv_reads for p, chain in wanted.items())


def loaded_window(name):
    return loaded(name)[0].config.dms_window_size


def test_a_request_that_is_too_long_is_refused():
    with pytest.raises(EngineError, match="may need"):
        vllm_chains("dms8", "dms", 8, max_model_len=128)


def test_a_request_that_makes_no_sense_is_refused_as_in_the_torch_engine():
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    rows = loaded("base")[0].config.vocab_size
    strange = [Request("p", 0, (1, rows), 4), Request("p", 0, (), 4), Request("p", 0, (1,), 0)]
    reasons = [f"token {rows}, .* the tokenizer is another model's", "needs a prompt", "at least one new token"]
    engine = VllmEngine(path("base"), methods.create("vanilla", cr=1), batch_size=2)
    try:
        for request, reason in zip(strange, reasons, strict=True):
            for sampling in (GREEDY, Sampling(temperature=0, stop=("never",), stop_in_answer=True)):
                with pytest.raises(EngineError, match=reason):
                    list(engine.generate([request], sampling))
        with pytest.raises(EngineError, match="forces tokens, which does not run in vLLM"):
            list(engine.generate([Request("p", 0, (1,), 2, forced_ids=(3, 4))], GREEDY))
        (chain,) = engine.generate([Request("p", 0, (1, rows - 1), 4)], GREEDY)
    finally:
        engine.close()
    assert len(chain.token_ids) <= 4


def test_marks_of_thinking_are_text_where_they_are_special_tokens_and_other_ones_are_not(tmp_path):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    script = ["<think>", "Hm. ", "</think>", "<|tool|>", "\\boxed{7}"]
    folder = scripted.write(tmp_path / "model", script, special=["<think>", "</think>", "<|tool|>"])
    model, tokenizer = load_model(folder)
    ids = tuple(tokenizer.encode(f"<|user|>7?{scripted.TURN}"))
    asked = [Request("p", 0, ids, 20, (2, 3, 20))]
    seen = []
    engine = VllmEngine(str(folder), methods.create("vanilla", cr=1), batch_size=1)
    try:
        (chain,) = list(engine.generate(asked, GREEDY, lambda progress: seen.append(progress.text())))
    finally:
        engine.close()
    (reference,) = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1)).generate(asked, GREEDY)
    assert chain.text == reference.text == "<think>Hm. </think>\\boxed{7}"
    assert chain.trace.chars == reference.trace.chars
    assert seen[1] == "<think>Hm. "
