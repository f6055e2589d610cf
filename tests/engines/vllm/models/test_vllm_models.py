"""Plain vLLM with the plugin installed, on every family and both kinds of gates, against masked full attention."""

from types import SimpleNamespace

import dense_reference
import pytest
import torch
import vllm_checkpoints
from vllm_engines import needs_vllm
from vllm_plain import agree, prompts, start, stop

pytestmark = [pytest.mark.e2e, needs_vllm]
NEW = 30


def borrowed(model, margins):
    """The verdicts of a borrowed neuron: the last of each KV head's first query head, in front of RoPE."""
    config = model.config

    def expiry(layer, hidden):
        block = model.model.layers[layer]
        attention, tokens = block.self_attn, hidden.shape[1]
        q = attention.q_proj(block.input_layernorm(hidden)).view(tokens, config.num_attention_heads, -1)
        q = attention.q_norm(q) if hasattr(attention, "q_norm") else q
        group = config.num_attention_heads // config.num_key_value_heads
        logits = q[:, ::group, -1] * config.dms_alpha_scale - config.dms_initial_alpha_offset
        margins.append(float(logits.abs().min()))
        gone = torch.full(logits.T.shape, dense_reference.NEVER)
        later = config.dms_decision_offset
        for i in range(tokens - later):
            gone[logits[i + later] > 0, i] = i + config.dms_window_size + 1
        return gone

    return expiry


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("source", ["projection", "neuron"])
@pytest.mark.parametrize("format", ["nvidia", "fastdms"])
def test_greedy_equals_masked_attention(family, source, format, tmp_path, monkeypatch):
    from vllm import SamplingParams

    settings = {"decision_offset": 0, "zeroing": "before_rope"} if format == "fastdms" else {}
    model = vllm_checkpoints.write(tmp_path, family, source=source, **settings)
    llm = start(tmp_path, max_num_batched_tokens=40)
    try:
        settings = SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, ignore_eos=True)
        given = [{"prompt_token_ids": ids} for ids in prompts(200)]
        outputs = llm.generate(given, settings, use_tqdm=False)
    finally:
        stop(llm)
    group = vllm_checkpoints.HEADS // vllm_checkpoints.KV_HEADS
    if source == "neuron":
        monkeypatch.setattr(dense_reference, "rotate", without_neuron(dense_reference.rotate, group, format))
    agree(model, outputs, dense_reference.dms if source == "projection" else borrowed)


def without_neuron(rotate, group, format):
    def rotated(x, cos, sin):
        if x.shape[0] != vllm_checkpoints.HEADS:
            return rotate(x, cos, sin)
        x = x.clone()
        x[::group, :, -1] = 0
        x = rotate(x, cos, sin)
        if format == "nvidia":
            x[::group, :, -1] = 0
        return x

    return rotated


def test_several_samples_of_a_prompt(tmp_path):
    from vllm import SamplingParams

    vllm_checkpoints.write(tmp_path, "qwen3")
    llm = start(tmp_path)
    try:
        settings = SamplingParams(temperature=1.0, max_tokens=NEW, n=3, seed=7, logprobs=1, ignore_eos=True)
        given = [{"prompt_token_ids": ids} for ids in prompts(200)]
        together = llm.generate(given, settings, use_tqdm=False)
        (alone,) = llm.generate(given[-1:], settings, use_tqdm=False)
    finally:
        stop(llm)
    for output in together:
        texts = {completion.token_ids for completion in map(_tupled, output.outputs)}
        assert len(texts) == 3
        assert all(len(completion.logprobs) == NEW for completion in output.outputs)
    # Seeds are per request: the batch does not matter.
    assert [tuple(c.token_ids) for c in alone.outputs] == [tuple(c.token_ids) for c in together[-1].outputs]


NONSENSE = (
    {"cuts": "abc"},
    {"cuts": 7},
    {"cuts": [None]},
    {"checkpoints": [1.5]},
    {"key": "abc"},
    {"key": 1 << 63},
    {"follow": "yes"},
    {"steps": 1},
    {"prompt": 0},
    {"L": "abc"},
)


def test_requests_that_ask_nonsense_do_not_end_the_engine(tmp_path):
    """A client's mistake is told to that client, and the requests beside it know nothing of it."""
    from vllm import SamplingParams

    vllm_checkpoints.write(tmp_path, "qwen3")
    llm = start(tmp_path)
    former = {"checkpoints": [1, 3], "key": -5}  # the name that cuts had first
    wanted = ({}, {"cuts": [1, 3], "key": -5}, former, *NONSENSE)
    try:
        settings = [
            SamplingParams(
                temperature=0,
                max_tokens=5,
                ignore_eos=True,
                extra_args={"kv_transfer_params": asked} if asked else None,
            )
            for asked in wanted
        ]
        outputs = llm.generate([{"prompt_token_ids": prompts(200)[2]}] * len(wanted), settings, use_tqdm=False)
    finally:
        stop(llm)
    plain, good, former_costs, *bad = (output.kv_transfer_params for output in outputs)
    assert [cut[0] for cut in good["cuts"]] == [1, 3, 5]
    assert good | {"cuts": plain["cuts"]} == plain
    assert former_costs == good
    for asked, costs in zip(NONSENSE, bad, strict=True):
        assert costs == plain | {"ignored": list(asked)}


def test_costs_where_a_stop_string_ends_a_request():
    """It is vLLM's front end that sees the string; the scheduler never learns that the request is over."""
    from vllm import SamplingParams
    from vllm_engines import path

    llm = start(path("dms8"))
    try:
        free, stopped = (
            llm.generate(["12 + 7 * 3 ="], SamplingParams(temperature=0, max_tokens=20, stop=stop_at), use_tqdm=False)[
                0
            ]
            for stop_at in (None, ["="])
        )
    finally:
        stop(llm)
    count = len(stopped.outputs[0].token_ids)
    assert stopped.outputs[0].finish_reason == "stop"
    assert count < len(free.outputs[0].token_ids)
    assert stopped.kv_transfer_params["tokens"] == count
    assert 0 < stopped.kv_transfer_params["kv_reads"] < free.kv_transfer_params["kv_reads"]


def _tupled(completion):
    completion.token_ids = tuple(completion.token_ids)
    return completion


@pytest.mark.parametrize(
    ("source", "format"),
    [
        ("projection", "nvidia"),
        ("neuron", "fastdms"),
        pytest.param("projection", "fastdms", marks=pytest.mark.slow),
        pytest.param("neuron", "nvidia", marks=pytest.mark.slow),
    ],
)
def test_compiled(source, format, tmp_path, monkeypatch):
    """Under torch.compile, as vLLM runs models on the CPU unless told otherwise."""
    from vllm import SamplingParams

    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")  # traced by dynamo, without the compiler behind it
    rule = {"decision_offset": 0, "zeroing": "before_rope"} if format == "fastdms" else {}
    vllm_checkpoints.write(tmp_path, "qwen3", source=source, **rule)
    found = []
    for eager in (True, False):
        llm = start(tmp_path, enforce_eager=eager)
        try:
            given = [{"prompt_token_ids": ids} for ids in prompts(200)]
            settings = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
            outputs = llm.generate(given, settings, use_tqdm=False)
            found.append([(tuple(o.outputs[0].token_ids), o.kv_transfer_params) for o in outputs])
        finally:
            stop(llm)
    assert found[0] == found[1]


REFUSED = {
    "pipeline": ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
    "ranks": ({"tensor_parallel_size": 4}, "replicates 2 KV heads"),
    "cache dtype": ({"kv_cache_dtype": "fp8_e5m2"}, "own type or in fp8, not in fp8_e5m2"),
    "rule": ({"additional_config": {"hyperscale": {"method": "oldest"}}}, "method must be one of"),
    "option": ({"additional_config": {"hyperscale": {"wndow": 3}}}, "no option 'wndow'"),
    "speculation": (
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
        "speculative decoding",
    ),
    "block size": ({"block_size": 16}, "multiples of 32"),
    "both directions": ({"hf_overrides": {"is_causal": False}}, "is_causal"),
    "dual chunks": ({"hf_overrides": {"dual_chunk_attention_config": {"chunk_size": 64}}}, "dual chunk"),
    "fast prefill": ({"kv_sharing_fast_prefill": True}, "skips the prompt"),
    "connector": (
        {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
        "another KV connector",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_at_start(case, tmp_path):
    more, reason = REFUSED[case]
    vllm_checkpoints.write(tmp_path, "qwen3")
    with pytest.raises(Exception, match=reason):
        start(tmp_path, **more)


def test_gates_are_needed(tmp_path):
    from hyperscale.engines.vllm.families import architecture

    vllm_checkpoints.write(tmp_path, "qwen3", source="")
    with pytest.raises(Exception, match=r"no dms_\* keys"):
        start(tmp_path, hf_overrides={"architectures": [architecture("qwen3")]})


def test_an_option_alone_chooses_a_method_on_any_checkpoint(tmp_path):
    """Without an option vLLM's own model runs, and tells no costs."""
    from vllm import SamplingParams

    vllm_checkpoints.write(tmp_path, "qwen3", source="")
    prompt, found = prompts(200)[-1], []
    for more in ({}, {"additional_config": {"hyperscale": {"method": "tova", "kv_budget": 40}}}):
        llm = start(tmp_path, **more)
        try:
            settings = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
            (output,) = llm.generate([{"prompt_token_ids": prompt}], settings, use_tqdm=False)
            found.append(output.kv_transfer_params)
        finally:
            stop(llm)
    assert found[0] is None
    assert found[1]["peak_kv"] <= len(prompt)
    assert found[1]["kv_reads"] <= 40 * (NEW - 1)


@pytest.mark.parametrize("family", ["mistral", "olmo2", "gpt_oss"])
def test_options_for_a_family_without_a_class_are_refused(tmp_path, family):
    """As `hyperscale run --engine vllm` refuses it; stock vLLM would run and compress nothing.

    vLLM has settings of its own for gpt_oss.
    """
    vllm_checkpoints.write(tmp_path, family, source="")
    with pytest.raises(Exception, match=rf"'{family}' do not run in the hyperscale plugin, which has qwen2, qwen3"):
        start(tmp_path, additional_config={"hyperscale": {"method": "tova", "kv_budget": 40}})


def test_vllms_settings_for_a_class_stay_where_no_options_are_given():
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from hyperscale.engines.vllm.plugin.register import register

    register()
    settings = MODELS_CONFIG_MAP["GptOssForCausalLM"]
    register()  # as often as vLLM likes
    assert MODELS_CONFIG_MAP["GptOssForCausalLM"] is settings
    structured = SimpleNamespace(reasoning_parser="")
    compilation = SimpleNamespace(cudagraph_capture_sizes=[1], max_cudagraph_capture_size=1)
    given = SimpleNamespace(additional_config={}, structured_outputs_config=structured, compilation_config=compilation)
    settings.verify_and_update_config(given)
    assert structured.reasoning_parser == "openai_gptoss"


def test_prefix_caching_is_switched_off(tmp_path):
    vllm_checkpoints.write(tmp_path, "qwen3")
    llm = start(tmp_path, enable_prefix_caching=True)
    try:
        assert not llm.llm_engine.vllm_config.cache_config.enable_prefix_caching
        assert llm.llm_engine.vllm_config.cache_config.block_size == 32
    finally:
        stop(llm)
