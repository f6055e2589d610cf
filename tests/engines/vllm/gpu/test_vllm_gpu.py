"""On a GPU only: the vLLM engine on the built-in model against the torch engine, graphs against eager steps.

Chains in float32 are compared twice: with the torch engine's own, where most are alike, and all of them, to their ends,
with what the torch engine makes of their tokens (`chain_replay`).
"""

from copy import deepcopy
from importlib.util import find_spec
from operator import attrgetter

import chain_replay
import dense_reference
import pytest
import torch
from commandline import caller
from vllm_engines import (
    EAGER,
    EAGER_SPARED,
    GRAPHS_SPARED,
    GREEDY,
    entry_bytes,
    loaded,
    needs_vllm,
    path,
    requests,
    same,
    torch_chains,
    torch_engine,
    vllm_chains,
)
from vllm_occupancy import watch_scheduler

from hyperscale import methods, results
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = [
    needs_vllm,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
HOW = {
    "whole": EAGER,
    "chunks": {**EAGER, "max_num_batched_tokens": 24},
    "preempted": {**EAGER, "max_model_len": 512, "scheduler_reserve_full_isl": False},
}


def preempting(engine):
    seen = watch_scheduler(engine._engine)

    def check():
        assert seen.preemptions > 0
        assert seen.blocks[-1] == 0

    return check


@pytest.mark.parametrize("cr", [4, 8])
@pytest.mark.parametrize("how", HOW)
def test_float32_equals_torch(cr, how):
    name, more = f"dms{cr}", dict(HOW[how])
    if how == "preempted":
        more |= {"kv_cache_memory_bytes": 18 * 32 * entry_bytes(name), "seen": preempting}
    found = vllm_chains(name, "dms", cr, **more)
    same(torch_chains(name, "dms", cr), found, name=name, method="dms")
    chain_replay.hold(torch_engine(name, "dms", cr), requests(), found, spared=EAGER_SPARED)


def test_full_graphs_equal_torch_where_requests_are_preempted():
    """Decode steps as graphs, whose reports are booked several at once, in a cache that is too small for all."""
    more = {
        **HOW["preempted"],
        "enforce_eager": False,
        "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"},
        "kv_cache_memory_bytes": 18 * 32 * entry_bytes("dms8"),
    }
    found = vllm_chains("dms8", "dms", 8, **more)
    same(torch_chains("dms8", "dms", 8), found, name="dms8", method="dms")
    chain_replay.hold(torch_engine("dms8", "dms", 8), requests(), found, spared=GRAPHS_SPARED)


def test_window_equals_torch():
    params = (("recent", 3),)
    wanted = torch_chains("base", "window", 3, params)
    found = vllm_chains("base", "window", 3, params, **HOW["chunks"])
    same(wanted, found, name="base", method="vanilla")
    chain_replay.hold(torch_engine("base", "window", 3, params), requests(), found)


@pytest.mark.parametrize("decode", ["fa3", "triton"])
@pytest.mark.parametrize("cr", [4, 8])
def test_bfloat16_is_near_masked_attention(cr, decode):
    """The chain that vLLM wrote, under full attention with a mask in float32: nearly its probabilities and its reads.

    Verdicts that are near ties turn in bfloat16, so reads need not be equal.
    """
    name = f"dms{cr}"
    model, _ = loaded(name)
    rows = model.config.num_hidden_layers * model.config.num_key_value_heads
    chains = vllm_chains(name, "dms", cr, dtype="bfloat16", options={"decode": decode}, **HOW["chunks"])
    prompts = {request.problem: request.prompt_ids for request in requests()}
    for problem, chain in chains.items():
        prompt = prompts[problem]
        ids = [*prompt, *chain.token_ids]
        logits, _, expiries = dense_reference.forward(model, ids, dense_reference.dms(model))
        scored = logits.log_softmax(-1)[range(len(prompt) - 1, len(ids) - 1), chain.token_ids]
        assert float(scored.sum()) / len(scored) == pytest.approx(chain.logprob / len(scored), abs=0.05)
        reads, _ = dense_reference.reads_and_peak(expiries, len(prompt), len(chain.token_ids))
        assert chain.trace.kv_reads[-1] == pytest.approx(reads / rows, rel=0.05)


@pytest.mark.parametrize(("dtype", "decode"), [("float32", "triton"), ("bfloat16", "triton"), ("bfloat16", "fa3")])
@pytest.mark.parametrize("full", [False, True])
def test_graphs_give_what_eager_steps_give(dtype, decode, full):
    """The same chains and costs; in bfloat16 fused operations round otherwise, so there all but a few."""
    chains = {}
    for eager in (True, False):
        options = {"decode": decode} | ({} if full else {"full_graphs": False})  # full ones are the default
        more = {**EAGER, "enforce_eager": eager, "options": options}
        found = vllm_chains("dms8", "dms", 8, dtype=dtype, seen=None if eager else graphs(full), **more)
        chains[eager] = {problem: (chain.token_ids, chain.trace.kv_reads) for problem, chain in found.items()}
        if dtype == "float32":
            spared = EAGER_SPARED if eager else GRAPHS_SPARED
            chain_replay.hold(torch_engine("dms8", "dms", 8), requests(), found, spared=spared)
    alike = sum(chains[True][problem] == chain for problem, chain in chains[False].items())
    assert alike >= (len(chains[True]) - 1 if dtype == "float32" else len(chains[True]) / 3)


@pytest.mark.parametrize("how", ["whole", "full graphs"])
def test_fp8_equals_torch(how):
    """In float32: a number that rounds otherwise in its last bit may fall to the next code, which turns a near tie."""
    wanted = torch_chains("dms8", "dms", 8, kv_dtype="fp8")
    found = vllm_chains("dms8", "dms", 8, kv_dtype="fp8", **(EAGER if how == "whole" else HOSTED_HOW[how]))
    alike = {problem: chain for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids}
    assert len(alike) >= len(wanted) - 1
    for problem, chain in alike.items():
        assert found[problem].trace.kv_reads == chain.trace.kv_reads
        assert found[problem].trace.peak_kv == chain.trace.peak_kv
        assert found[problem].logprob == pytest.approx(chain.logprob, abs=0.1)


@pytest.mark.parametrize("method", ["dms", "tova", "snapkv", "quest"])
def test_fp8_in_bfloat16_gives_near_probabilities(method):
    """First tokens as without fp8; entries are read and pruned as they are stored, under graphs too."""
    name, cr = ("dms8", 8) if method == "dms" else ("base", 4)
    params = tuple(HOSTED.get(method, {}).items())
    found = {
        kv_dtype: vllm_chains(
            name, method, cr, params, dtype="bfloat16", kv_dtype=kv_dtype, **HOSTED_HOW["full graphs"]
        )
        for kv_dtype in ("auto", "fp8")
    }
    for problem, chain in found["auto"].items():
        other = found["fp8"][problem]
        assert other.trace.logprobs[0] == pytest.approx(chain.trace.logprobs[0], abs=0.1)
        if 50 in chain.trace.lengths and 50 in other.trace.lengths:
            reads = [trace.kv_reads[trace.lengths.index(50)] for trace in (chain.trace, other.trace)]
            assert reads[1] == pytest.approx(reads[0], rel=0.1)
        assert other.logprob / len(other.token_ids) > chain.logprob / len(chain.token_ids) - 0.5


@pytest.mark.parametrize("kv_dtype", ["fp8", "int8_per_token_head", "turboquant_k8v4", "turboquant_4bit_nc"])
def test_caches_of_vllms_own(kv_dtype):
    """Vanilla runs on them; what an entry takes is counted as vLLM lays it out."""
    from hyperscale.engines.vllm.cache_types import _pair_bytes

    if kv_dtype.startswith("turboquant") and find_spec("vllm.vllm_flash_attn._vllm_fa2_C") is None:
        pytest.skip("vLLM runs these with FlashAttention 2, which this build of it lacks")

    def check_blocks(engine):
        def check():
            # The scheduler's own record has one type for all layers, whatever they are of.
            worker = engine._engine.engine_core.engine_core.model_executor.driver_worker.worker
            groups = worker.model_runner.kv_cache_config.kv_cache_groups
            specs = []
            for spec in (group.kv_cache_spec for group in groups):
                specs += getattr(spec, "kv_cache_specs", {"": spec}).values()
            sizes = {spec.unpadded_page_size_bytes / spec.block_size / spec.num_kv_heads for spec in specs}
            assert _pair_bytes(kv_dtype, 32) in sizes

        return check

    full = vllm_chains("base", "vanilla", 1, dtype="bfloat16", **EAGER)
    found = vllm_chains("base", "vanilla", 1, dtype="bfloat16", kv_dtype=kv_dtype, seen=check_blocks, **EAGER)
    for problem, chain in found.items():
        assert chain.trace.logprobs[0] == pytest.approx(full[problem].trace.logprobs[0], abs=0.5)
        assert chain.logprob / len(chain.token_ids) > full[problem].logprob / len(full[problem].token_ids) - 1


# Without knorm: equal tokens have keys of equal norm in the first layer, so the rounding of sums decides.
HOSTED = {
    "streaming": {},
    "random": {"pin_prompt": False},
    "tova": {},
    "h2o": {},
    "snapkv": {"window": 4, "pin_prompt": False},
    "rkv": {},
    "keydiff": {},
    "triattention": {"pin_prompt": False},
    "quest": {"dense_layers": 1},
}
HOSTED_HOW = {
    "chunks": HOW["chunks"],
    "full graphs": {
        **EAGER,
        "enforce_eager": False,
        "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"},
    },
}


@pytest.mark.parametrize("method", HOSTED)
@pytest.mark.parametrize("how", HOSTED_HOW)
def test_methods_with_states_of_their_own_equal_torch(method, how):
    params = tuple(HOSTED[method].items())
    cr = 1 if "budget" in HOSTED[method] else 4
    wanted = torch_chains("base", method, cr, params, length=120)
    found = vllm_chains("base", method, cr, params, length=120, **HOSTED_HOW[how])
    # A decision between two scores that nearly tie may fall the other way: sums are in another order.
    alike = {problem: chain for problem, chain in wanted.items() if found[problem].token_ids == chain.token_ids}
    assert len(alike) >= (len(wanted) - 1 if how == "chunks" else len(wanted) / 2)
    same(alike, {problem: found[problem] for problem in alike})
    spared = EAGER_SPARED if how == "chunks" else GRAPHS_SPARED
    chain_replay.hold(torch_engine("base", method, cr, params), requests(2, 120), found, spared=spared)


#: Rules that are as near to the right one as a mistake might be: what vLLM runs, and what it is held against.
WRONG = {
    "another ratio": (("base", "tova", 4.2, ()), ("base", "tova", 4, ())),
    "one score for each head": (("base", "tova", 4, (("per", "head"),)), ("base", "tova", 4, ())),
    "a window off by one": (("base", "window", 3, (("recent", 4),)), ("base", "window", 3, (("recent", 3),))),
    "one dense layer more": (
        ("base", "quest", 4, (("dense_layers", 2),)),
        ("base", "quest", 4, (("dense_layers", 1),)),
    ),
    "one query less": (
        ("base", "snapkv", 4, (("window", 3), ("pin_prompt", False))),
        ("base", "snapkv", 4, (("window", 4), ("pin_prompt", False))),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_rule_does_not_hold(case):
    """The control of these comparisons, with as many chains spared as anywhere."""
    wrong, right = WRONG[case]
    found = vllm_chains(*wrong, length=120, **HOSTED_HOW["full graphs"])
    asked = requests(2, 120)
    with pytest.raises(AssertionError):
        chain_replay.hold(torch_engine(*right), asked, found, spared=GRAPHS_SPARED)
    chain_replay.hold(torch_engine(*wrong), asked, found, spared=GRAPHS_SPARED)


def test_a_window_of_dms_off_by_one_does_not_hold():
    found = vllm_chains("dms8", "dms", 8, **EAGER)
    model, tokenizer = loaded("dms8")
    wrong = deepcopy(model)
    wrong.config.dms_window_size += 1
    engine = TorchEngine(wrong, tokenizer, methods.create("dms", cr=8), batch_size=8)
    with pytest.raises(AssertionError, match="kv_reads"):
        chain_replay.hold(engine, requests(), found, spared=GRAPHS_SPARED)


@pytest.mark.parametrize("how", ["whole", "chunks"])
@pytest.mark.parametrize(
    ("method", "params"),
    [("snapkv", (("pin_prompt", False),)), ("triattention", (("pin_prompt", False),)), ("window", (("recent", 3),))],
)
def test_prompts_by_flash_attention(method, params, how):
    """Prompts prefilled by FlashAttention 3 are those of the plugin's kernel, and cost what the rule says."""
    wanted = torch_chains("base", method, 4, params, length=120)
    found = {
        decode: vllm_chains(
            "base", method, 4, params, length=120, dtype="bfloat16", options={"decode": decode}, **HOW[how]
        )
        for decode in ("fa3", "triton")
    }
    for problem, chain in found["fa3"].items():
        other = found["triton"][problem]
        # The first token is drawn from what the prompt's own attention says.
        assert chain.trace.logprobs[0] == pytest.approx(other.trace.logprobs[0], abs=0.05)
        # What a step reads is a matter of counting, whichever entries stay.
        for length, reads in zip(chain.trace.lengths, chain.trace.kv_reads, strict=True):
            if length in wanted[problem].trace.lengths:
                assert reads == wanted[problem].trace.kv_reads[wanted[problem].trace.lengths.index(length)]


ARMS = {
    "usual": (("window", 3, (("recent", 3),)), ("tova", 4, ()), ("window", 6, (("recent", 3),)), ("streaming", 4, ())),
    "other rules": (
        ("tova", 3, (("per", "head"), ("pin_prompt", True), ("rule", "proportional"))),
        ("h2o", 3, (("pin_prompt", True),)),
        ("quest", 4, (("rule", "proportional"), ("page", 5), ("dense_layers", 1))),
        ("random", 4, ()),
    ),
}


@pytest.mark.parametrize(
    ("rules", "compilation"), [("usual", "none"), ("usual", "graphs"), ("usual", "full"), ("other rules", "full")]
)
def test_arms_in_turn_equal_torch(rules, compilation):
    """One engine for several methods: whole steps are recorded for each, in its own process unless all is eager."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    arms = [methods.create(name, cr=cr, **dict(params)) for name, cr, params in ARMS[rules]]
    engine = VllmEngine(
        path("base"),
        arms[0],
        methods=arms,
        batch_size=8,
        device="cuda",
        compilation=compilation,
        gpu_memory=0.3,
        kv_cache_memory_bytes=1 << 28,
    )
    try:
        found = []
        for number in (0, 1, 2, 3, 1, 0):
            engine.switch(arms[number])
            chains = {chain.problem: chain for chain in engine.generate(requests(2, 120), GREEDY)}
            name, cr, params = ARMS[rules][number]
            wanted = torch_chains("base", name, cr, params, length=120)
            # A decision between two scores that nearly tie may fall the other way: sums are in another order. Of quest
            # it may change reads alone, by a page of a list.
            told = attrgetter("token_ids", *(["trace.kv_reads"] if name in chain_replay.DECIDE_COUNTS else []))
            alike = {p: chain for p, chain in wanted.items() if told(chains[p]) == told(chain)}
            assert len(alike) >= len(wanted) / 2, name
            same(alike, {problem: chains[problem] for problem in alike})
            spared = EAGER_SPARED if compilation == "none" else GRAPHS_SPARED
            chain_replay.hold(torch_engine("base", name, cr, params), requests(2, 120), chains, spared=spared)
            found.append({problem: (chain.token_ids, chain.trace.kv_reads) for problem, chain in chains.items()})
    finally:
        engine.close()
    for first, again in ((1, 4), (0, 5)):
        assert sum(found[first][problem] == found[again][problem] for problem in found[first]) >= len(found[first]) - 1


def test_a_run_chooses_vllm(monkeypatch, capsys, tmp_path):
    """By default, on a GPU with room: one engine for the arms of the base model, one for vanilla."""
    from hyperscale.engines.vllm.harness import engine

    starts, start = [], engine.start_engine
    monkeypatch.setattr(
        engine, "start_engine", lambda args, *rest, **more: starts.append(args) or start(args, *rest, **more)
    )
    call = caller(monkeypatch, capsys, tmp_path)
    arms = ("--method", "vanilla,window,tova", "--cr", "4,8", "--gpu-memory", "0.3")
    size = ("--task", "mini_aime", "--limit", "2", "--length", "64", "--budget", "all", "--out", tmp_path / "run")
    code, out, err = call("run", "--model", "mini", *arms, *size)
    assert code == 0, err
    assert "Engine: vllm: it is installed and runs" in out
    assert len(starts) == 2
    (run,) = results.read(tmp_path / "run")
    assert {sample.engine for sample in run.samples} == {"vllm"}
    assert len({sample.arm for sample in run.samples}) == 5


def graphs(full):
    """Make sure that graphs of the wanted kind are in use."""

    def look(engine):
        chosen = engine._engine.vllm_config.compilation_config
        assert "vllm::hyperscale_attention" in chosen.splitting_ops
        mode = chosen.cudagraph_mode
        assert mode.has_piecewise_cudagraphs()
        assert mode.has_full_cudagraphs() == full

    return look
