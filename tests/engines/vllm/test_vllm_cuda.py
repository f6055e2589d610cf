"""The CUDA backend inside vLLM: on a GPU as it is, elsewhere on CPU tensors with kernels in triton's interpreter.

With VLLM_USE_V2_MODEL_RUNNER=1 the latter takes the model runner and the scheduler that GPUs get.
"""

import os
import subprocess
import sys

import dense_reference
import pytest
import tiny
import vllm_checkpoints
from interpreted import CUDA, MARKS
from recorded_steps import RecordedCalls
from vllm_engines import GREEDY, needs_vllm
from vllm_occupancy import watch_scheduler
from vllm_plain import agree, prompts, start, stop

from hyperscale import methods
from hyperscale.engines.base import Request
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.methods.core.dmc_merge import MergeConfig

pytestmark = [pytest.mark.e2e, needs_vllm, *MARKS]
NEW = 10
NEWER = not CUDA and os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
GPU = {"gpu_memory_utilization": 0.3} if CUDA else {}
CHUNKS = {"max_num_batched_tokens": 40}
TIGHT = {"kv_cache_memory_bytes": 6 * 32 * 1024, "max_model_len": 112, "scheduler_reserve_full_isl": False}
HOW = {"whole": {}, "chunks": CHUNKS, "preempted": {**TIGHT, **CHUNKS}}


@pytest.fixture(autouse=True)
def _on_cuda(monkeypatch):
    from hyperscale.engines.vllm import devices

    monkeypatch.setattr(devices, "current_device", lambda: "cuda")
    if NEWER:
        from vllm.platforms import current_platform

        check = type(current_platform).check_and_update_config.__func__

        def asynchronous(cls, config):
            check(cls, config)
            config.scheduler_config.async_scheduling = True

        monkeypatch.setattr(type(current_platform), "check_and_update_config", classmethod(asynchronous))


def generate(folder, new=NEW, **more):
    """Greedy outputs of vLLM for prompts of 1 to 90 tokens, and the number of preemptions."""
    from vllm import SamplingParams

    from hyperscale.engines.vllm.worker.cache_worker import CacheWorker
    from hyperscale.engines.vllm.worker.cuda import CudaCacheWorker

    llm = start(folder, **(GPU | more))
    try:
        seen = watch_scheduler(llm.llm_engine)
        settings = SamplingParams(temperature=0, max_tokens=new, logprobs=0, ignore_eos=True)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts(200)], settings, use_tqdm=False)
        assert isinstance(CacheWorker.current, CudaCacheWorker)
        if NEWER:
            runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
            assert type(runner).__module__ == "vllm.v1.worker.cpu.model_runner"
            assert llm.llm_engine.vllm_config.scheduler_config.async_scheduling
        assert seen.blocks[-1] == 0
    finally:
        stop(llm)
    return outputs, seen.preemptions


def told(outputs):
    return [(tuple(output.outputs[0].token_ids), output.kv_transfer_params) for output in outputs]


slow = pytest.mark.slow


@pytest.mark.parametrize("how", ["preempted", pytest.param("whole", marks=slow), pytest.param("chunks", marks=slow)])
def test_dms_equals_masked_attention(how, tmp_path):
    model = vllm_checkpoints.write(tmp_path, "qwen3", offset=1.0 if how == "preempted" else 0.0)
    outputs, preemptions = generate(tmp_path, **HOW[how])
    agree(model, outputs, dense_reference.dms)
    assert (preemptions > 0) == (how == "preempted")


@slow
@pytest.mark.parametrize("how", ["chunks", "preempted"])
def test_window_equals_torch(how, tmp_path):
    from hyperscale.engines.vllm.families import architecture

    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    mine = {"architectures": [architecture("qwen3")]}
    options = {"hyperscale": {"method": "window", "cr": 3, "recent": 3}}
    outputs, preemptions = generate(tmp_path, hf_overrides=mine, additional_config=options, **HOW[how])
    assert (preemptions > 0) == (how == "preempted")
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    engine = TorchEngine(model, tiny.Characters(model.config.vocab_size + 1), methods.create("window", cr=3, recent=3))
    requests = [Request(str(i), 0, tuple(output.prompt_token_ids), NEW) for i, output in enumerate(outputs)]
    for chain in engine.generate(requests, GREEDY):
        output = outputs[int(chain.problem)]
        assert tuple(output.outputs[0].token_ids) == chain.token_ids
        costs = output.kv_transfer_params
        assert (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])


FP8 = {
    "dms": ("dms", 8, {}, {}),
    "window": ("window", 3, {"recent": 3}, {"recent": 3}),
    "tova": ("tova", 3, {}, {"parameters": {}}),
    "h2o": ("h2o", 3, {"pin_prompt": True}, {"parameters": {"pin_prompt": True}}),
    "snapkv": ("snapkv", 3, {"window": 4}, {"parameters": {"window": 4}}),
    "quest": ("quest", 3, {"page": 4}, {"parameters": {"page": 4}}),
}


@pytest.mark.parametrize("case", ["dms", *(pytest.param(case, marks=slow) for case in FP8 if case != "dms")])
def test_pages_in_fp8_equal_torch(case, tmp_path):
    """Whole prompts attend to what is not rounded yet, as in the torch engine; later steps read all of it rounded."""
    from hyperscale.engines.vllm.families import architecture

    name, cr, params, options = FP8[case]
    model = vllm_checkpoints.write(tmp_path, "qwen3", **({} if name == "dms" else {"source": ""}))
    new = 16  # with budgets of 10 tokens tova decides between two scores 1e-4 apart, which a rounded code turns
    outputs, _ = generate(
        tmp_path,
        new,
        hf_overrides={"architectures": [architecture("qwen3")]},
        additional_config={"hyperscale": {"method": name, "cr": cr, **options}},
        kv_cache_dtype="fp8",
    )
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    tokenizer, method = tiny.Characters(model.config.vocab_size + 1), methods.create(name, cr=cr, **params)
    asked = [tuple(output.prompt_token_ids) for output in outputs]
    # A prompt of one token is a decode step to vLLM, and reads that token rounded.
    requests = [Request(str(i), 0, ids, new) for i, ids in enumerate(asked) if len(ids) > 1]
    engines = {kv_dtype: TorchEngine(model, tokenizer, method, kv_dtype=kv_dtype) for kv_dtype in ("fp8", "auto")}
    chains = {kv_dtype: list(engine.generate(requests, GREEDY)) for kv_dtype, engine in engines.items()}
    for chain in chains["fp8"]:
        output = outputs[int(chain.problem)]
        assert tuple(output.outputs[0].token_ids) == chain.token_ids
        costs = output.kv_transfer_params
        assert (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])
        actual = sum(row[token].logprob for row, token in zip(output.outputs[0].logprobs, chain.token_ids, strict=True))
        assert actual == pytest.approx(chain.logprob, abs=1e-3)
    assert any(a.logprob != pytest.approx(b.logprob, abs=1e-2) for a, b in zip(*chains.values(), strict=True))


HOSTED = {
    "streaming": ("streaming", 3, {"sinks": 2}),
    "window, not pinned": ("window", 3, {"pin_prompt": False}),
    "tova": ("tova", 3, {}),
    "h2o": ("h2o", 3, {}),
    "h2o, pinned": ("h2o", 3, {"pin_prompt": True}),
    "snapkv": ("snapkv", 3, {"window": 4, "pin_prompt": False}),
    "rkv": ("rkv", 3, {"window": 3}),
    "keydiff": ("keydiff", 3, {}),
    "keydiff in tokens": ("keydiff", 1, {"budget": 20}),
    "triattention": ("triattention", 3, {"pin_prompt": False}),
    "quest": ("quest", 3, {"page": 4, "dense_layers": 1}),
}


HOSTED_TWICE = ("h2o, pinned", "keydiff in tokens")
HOSTED_RUNS = [
    pytest.param(case, how, marks=() if how == "chunks" and case not in HOSTED_TWICE else slow)
    for how in ("whole", "chunks")
    for case in HOSTED
]


@pytest.fixture
def _recorded_prunings(monkeypatch):
    """Elsewhere than on a GPU, prunings of decoding requests are recorded and repeated as CUDA graphs are there."""
    from hyperscale.engines.vllm.worker.methods.interval import WorkerInterval

    use_kernels = WorkerInterval.use_kernels

    def record(method):
        use_kernels(method)
        method.calls = RecordedCalls()

    if not CUDA:
        monkeypatch.setattr(WorkerInterval, "use_kernels", record)


@pytest.mark.usefixtures("_recorded_prunings")
@pytest.mark.parametrize(("case", "how"), HOSTED_RUNS)
def test_methods_with_states_of_their_own_equal_torch(case, how, tmp_path):
    from hyperscale.engines.vllm.families import architecture

    name, cr, params = HOSTED[case]
    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    mine = {"architectures": [architecture("qwen3")]}
    options = {"hyperscale": {"method": name, "cr": cr, "parameters": params}}
    outputs, preemptions = generate(tmp_path, hf_overrides=mine, additional_config=options, **HOW[how])
    assert not preemptions
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    engine = TorchEngine(model, tiny.Characters(model.config.vocab_size + 1), methods.create(name, cr=cr, **params))
    requests = [Request(str(i), 0, tuple(output.prompt_token_ids), NEW) for i, output in enumerate(outputs)]
    num_alike = 0
    for chain in engine.generate(requests, GREEDY):
        output = outputs[int(chain.problem)]
        costs = output.kv_transfer_params
        assert (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])
        num_alike += tuple(output.outputs[0].token_ids) == chain.token_ids
    # Scores of random weights lie close together: in one chain a decision may fall the other way by rounding.
    assert num_alike >= len(outputs) - 1


@pytest.mark.parametrize("how", ["preempted", pytest.param("chunks", marks=slow), pytest.param("whole", marks=slow)])
def test_dmc_equals_torch(how, tmp_path):
    """Random neurons merge half of all tokens; a mean goes on from chunk to chunk, and into decode steps."""
    from hyperscale.engines.vllm.families import architecture

    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    neurons = MergeConfig(alpha_scale=1.0, initial_offset=0.0, cr=2.0).to_hf()
    for name, value in neurons.items():
        setattr(model.config, name, value)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    mine = {"architectures": [architecture("qwen3")], **neurons}
    options = {"hyperscale": {"method": "dmc"}}
    outputs, preemptions = generate(tmp_path, hf_overrides=mine, additional_config=options, **HOW[how])
    assert (preemptions > 0) == (how == "preempted")
    engine = TorchEngine(model, tiny.Characters(model.config.vocab_size + 1), methods.create("dmc", cr=2))
    requests = [Request(str(i), 0, tuple(output.prompt_token_ids), NEW) for i, output in enumerate(outputs)]
    num_alike = 0
    for chain in engine.generate(requests, GREEDY):
        output = outputs[int(chain.problem)]
        costs = output.kv_transfer_params
        alike = tuple(output.outputs[0].token_ids) == chain.token_ids
        num_alike += alike
        assert not alike or (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])
        assert not alike or costs["prefill_reads"] == chain.trace.prefill_reads
        assert costs["peak_kv"] < 0.9 * (len(output.prompt_token_ids) + NEW)
    assert num_alike >= len(outputs) - 1


CONTINUED = {"dms": {}, "tova": {"method": "tova", "cr": 3, "parameters": {}}}


@pytest.mark.parametrize("case", ["tova", pytest.param("dms", marks=slow)])
def test_continuations_give_what_the_whole_gives(case, tmp_path):
    """Behind the first tokens of a chain: the tokens that follow, and the costs of all, each told once."""
    from vllm import SamplingParams

    from hyperscale.engines.vllm.families import architecture

    vllm_checkpoints.write(tmp_path, "qwen3", **({} if case == "dms" else {"source": ""}), offset=1.0)
    mine = {} if case == "dms" else {"hf_overrides": {"architectures": [architecture("qwen3")]}}
    llm = start(tmp_path, **GPU, **CHUNKS, **mine, additional_config={"hyperscale": CONTINUED[case]})

    def outputs(prompts, asked):
        settings = [
            SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, extra_args={"kv_transfer_params": params})
            for new, params in asked
        ]
        return llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)

    try:
        seen = watch_scheduler(llm.llm_engine)
        whole = outputs(prompts(200), [(NEW, {"steps": True, "L": 20})] * 4)
        known = (1, 6, 9, 4)
        first = [list(output.outputs[0].token_ids)[:n] for output, n in zip(whole, known, strict=True)]
        asked = [
            (NEW - n, {"steps": True, "L": 20, "prompt": len(output.prompt_token_ids)})
            for output, n in zip(whole, known, strict=True)
        ]
        continued = outputs([[*ids, *more] for ids, more in zip(prompts(200), first, strict=True)], asked)
        assert seen.blocks[-1] == 0
    finally:
        stop(llm)
    num_alike = 0
    for one, other, n in zip(whole, continued, known, strict=True):
        costs = one.kv_transfer_params
        assert [costs["steps"][-1][k] / 4 for k in (0, 1)] == [costs["kv_reads"], costs["peak_kv"]]
        assert len(costs["steps"]) == costs["tokens"] == NEW
        alike = list(one.outputs[0].token_ids)[n:] == list(other.outputs[0].token_ids)
        num_alike += alike
        assert not alike or other.kv_transfer_params == costs
    # Scores of random weights lie close together: in one chain a decision may fall the other way by rounding.
    assert num_alike >= len(whole) - 1


def test_arms_in_turn_equal_torch(tmp_path):
    """A rule by expiries, one with a state and the first again, in one engine."""
    from vllm import SamplingParams

    from hyperscale.engines.vllm.families import architecture

    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    arms = [{"method": "window", "cr": 3, "recent": 3}, {"method": "tova", "cr": 3, "parameters": {"per": "layer"}}]
    llm = start(
        tmp_path,
        hf_overrides={"architectures": [architecture("qwen3")]},
        additional_config={"hyperscale": {**arms[0], "arms": arms}},
        worker_extension_cls="hyperscale.engines.vllm.plugin.arm_switch.ArmSwitch",
        **GPU,
    )
    try:
        for number in (0, 1, 0):
            llm.collective_rpc("hyperscale_use_arm", args=(number,))
            extra = {"kv_transfer_params": {"arm": number}}
            settings = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, extra_args=extra)
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts(200)[:3]], settings, use_tqdm=False)
            kv_method = (methods.create("window", cr=3, recent=3), methods.create("tova", cr=3, per="layer"))[number]
            engine = TorchEngine(model, tiny.Characters(model.config.vocab_size + 1), kv_method)
            requests = [Request(str(i), 0, tuple(output.prompt_token_ids), NEW) for i, output in enumerate(outputs)]
            for chain in engine.generate(requests, GREEDY):
                output = outputs[int(chain.problem)]
                assert tuple(output.outputs[0].token_ids) == chain.token_ids
                costs = output.kv_transfer_params
                assert (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])
    finally:
        stop(llm)


def test_random_needs_no_parameters_of_its_own(tmp_path):
    """It runs by its own state with the options that it has on the CPU; which entries go depends on the noise key."""
    from hyperscale.engines.vllm.families import architecture

    model = vllm_checkpoints.write(tmp_path, "qwen3", source="")
    mine = {"architectures": [architecture("qwen3")]}
    options = {"hyperscale": {"method": "random", "cr": 3, "recent": 4}}
    outputs, _ = generate(tmp_path, hf_overrides=mine, additional_config=options)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    engine = TorchEngine(model, tiny.Characters(model.config.vocab_size + 1), methods.create("random", cr=3, recent=4))
    requests = [Request(str(i), 0, tuple(output.prompt_token_ids), NEW) for i, output in enumerate(outputs)]
    for chain in engine.generate(requests, GREEDY):
        costs = outputs[int(chain.problem)].kv_transfer_params
        assert (costs["kv_reads"], costs["peak_kv"]) == (chain.trace.kv_reads[-1], chain.trace.peak_kv[-1])


@slow
def test_nothing_evicted_and_hashed_verdicts(tmp_path):
    """Without eviction costs are a dense cache's; with verdicts by hash a given part of old entries stays."""
    from hyperscale.engines.vllm.families import architecture

    vllm_checkpoints.write(tmp_path, "qwen3", source="")
    mine = {"architectures": [architecture("qwen3")]}
    dense_outputs, _ = generate(
        tmp_path, new=4, hf_overrides=mine, additional_config={"hyperscale": {"method": "none"}}
    )
    options = {"hyperscale": {"method": "hashed", "cr": 4, "window": 8}}
    outputs, _ = generate(tmp_path, new=4, hf_overrides=mine, additional_config=options)
    for output in dense_outputs:
        prompt = len(output.prompt_token_ids)
        assert output.kv_transfer_params["kv_reads"] == sum(range(prompt + 1, prompt + 4))
        assert output.kv_transfer_params["peak_kv"] == prompt + 3
    longest = outputs[-1]
    assert 3 * (8 + 12) < longest.kv_transfer_params["kv_reads"] < 3 * (8 + 40)


@slow
@pytest.mark.skipif(CUDA or NEWER, reason="as on a GPU already")
def test_with_the_runner_and_the_scheduler_of_gpus():
    environment = {**os.environ, "VLLM_USE_V2_MODEL_RUNNER": "1"}
    tests = [__file__, "-m", "slow or not slow", "-k", "preempted or continuations", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *tests], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
