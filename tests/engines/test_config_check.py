"""Configurations that ask for what the engines do not compute are refused by name; those that ask for nothing pass."""

import json
import sys

import architectures
import commandline
import pytest
import torch
from transformers import AutoModelForCausalLM

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.config_check import check_config, load_supported_config, rope_notes
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ModelError
from hyperscale.models.context import context_limit

FAMILIES = ("qwen2", "qwen3", "llama")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def edit(folder, **keys):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "rope_scaling" in keys:
        config.pop("rope_parameters", None)
    path.write_text(json.dumps(config | keys))
    return folder


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        ({"model_type": "gpt2"}, ("'gpt2'", "learned positions")),
        ({"model_type": "qwen3_moe"}, ("'qwen3_moe'",)),
        ({"model_type": None}, ("None",)),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}, ("'mine'", "never run")),
        ({"quantization_config": {"quant_method": "fp8"}}, ("quantised", "fp8")),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ("quantised", "gptq")),
        ({"quantization_config": {"quant_algo": "NVFP4"}}, ("quantised", "NVFP4")),
        ({"quantization_config": {"load_in_4bit": True}}, ("quantised",)),
        ({"compression_config": {"format": "pack-quantized"}}, ("quantised", "pack-quantized")),
        ({"layer_types": ["full_attention", "chunked_attention"]}, ("chunked_attention",)),
        ({"layer_types": ["linear_attention", "full_attention"]}, ("linear_attention",)),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ("sliding-window",)),
        ({"layer_types": "full_attention"}, ("layer_types", "list")),
        ({"layer_types": [1, 2]}, ("layers of type 1, 2",)),
        ({"qk_norm": True}, ("qk_norm",)),
        ({"is_causal": False}, ("is_causal",)),
        ({"logit_scale": 0.5}, ("logit_scale",)),
        ({"dual_chunk_attention_config": {"chunk_size": 8}}, ("dual_chunk_attention_config",)),
        ({"final_logit_softcapping": 30.0}, ("final_logit_softcapping",)),
        ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor", "0.5")),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ("'dynamic'", "batch")),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [2]}}, ("'longrope'", "batch")),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, ("'dynamic'",)),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, ("mrope", "text")),
        ({"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}}, ("mrope", "text")),
        ({"rope_scaling": {"rope_type": "spiral"}}, ("'spiral'", "supported: default, linear, llama3, yarn")),
        ({"rope_scaling": {"rope_type": "linear"}}, ("linear", "factor", "None")),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, ("rope_theta", "above 0")),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, ("rope_theta", "'x'")),
        ({"rope_theta": -1.0}, ("rope_theta", "-1.0")),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, ("full_attention",)),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}}, ("0.5",)),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_computed_is_refused(tmp_path, family, keys, texts):
    folder = edit(architectures.write(tmp_path, family), **keys)
    for load in (load_supported_config, load_model):
        with pytest.raises(ModelError) as caught:
            load(str(folder))
        message = str(caught.value)
        assert "\n" not in message
        for text in texts:
            assert text in message


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": None}),
        ("llama", {"sliding_window": 8}),
        ("llama", {"attention_bias": False, "qkv_bias": True}),
        ("llama", {"bias": True}),
    ],
)
def test_windows_and_biases_that_only_some_engines_have(tmp_path, family, keys):
    folder = edit(architectures.write(tmp_path, family), **keys)
    with pytest.raises(ModelError, match=r"sliding-window|bias"):
        load_model(folder)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "keys",
    [
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        {"qk_norm": False, "is_causal": True, "logit_scale": 1.0, "partial_rotary_factor": 1.0},
    ],
)
def test_what_asks_for_nothing_passes(tmp_path, family, keys):
    load_model(edit(architectures.write(tmp_path, family), **{"layer_types": None, **keys}))


def test_code_of_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    """Neither for a family that transformers knows nor for another one, and nobody is asked."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    folder = architectures.write(tmp_path, "llama")
    marker = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    maps = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    load_model(edit(folder, auto_map=maps))
    with pytest.raises(ModelError, match="'mine' are not supported"):
        load_model(edit(folder, model_type="mine"))
    assert not marker.exists()
    assert not [name for name in sys.modules if name.endswith(".mine")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "rope",
    [
        {"type": "linear", "factor": 4.0},
        YARN,
        {**YARN, "attention_factor": 1.3, "beta_fast": 16, "beta_slow": 2},
        LLAMA3,
        {"rope_type": "default"},
    ],
)
def test_rope_that_depends_on_the_position_alone_is_that_of_transformers(tmp_path, family, rope):
    folder = edit(architectures.write(tmp_path, family), rope_scaling=rope, max_position_embeddings=128)
    model, tokenizer = load_model(folder)
    prompts = [tuple(tokenizer.encode("a" * n + " and then"[: n % 7 + 1])) for n in (3, 20, 41)]
    requests = [Request(str(i), 0, ids, 60) for i, ids in enumerate(prompts)]
    made = {}
    for size in (1, 3):
        engine = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1), batch_size=size)
        made[size] = {c.problem: c.token_ids for c in engine.generate(requests, Sampling(temperature=0))}
    assert made[1] == made[3]
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    for request in requests:
        ids = torch.tensor([[*request.prompt_ids, *made[1][request.problem]]])
        with torch.inference_mode():
            best = plain(ids).logits[0, len(request.prompt_ids) - 1 : -1, : len(tokenizer)].argmax(-1)
        assert tuple(best.tolist()) == made[1][request.problem]


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        (
            {"max_position_embeddings": 32768, "rope_scaling": {**YARN, "original_max_position_embeddings": 32768}},
            131072,
        ),
        (
            {"max_position_embeddings": 131072, "rope_scaling": {**YARN, "original_max_position_embeddings": 32768}},
            131072,
        ),
        ({"max_position_embeddings": 40960, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 163840),
        ({"max_position_embeddings": 131072, "rope_scaling": {**LLAMA3, "factor": 32.0}}, 131072),
        ({"model_type": "llama"}, 2048),
        ({}, None),
    ],
)
def test_context_limit(config, tokens):
    assert context_limit(config) == tokens


def test_published_configurations_pass():
    for config in (
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 21},
        {"model_type": "qwen3", "rope_scaling": None, "sliding_window": None, "use_sliding_window": False},
        {
            "model_type": "llama",
            "rope_scaling": LLAMA3,
            "attention_bias": False,
            "mlp_bias": False,
            "pretraining_tp": 1,
        },
    ):
        check_config(config)


def test_keys_of_rope_that_nobody_reads_are_told(tmp_path, monkeypatch, capsys):
    """As in the file of DeepSeek-R1-0528-Qwen3-8B."""
    folder = architectures.write(tmp_path / "model", "qwen3")
    read = {**YARN, "attention_factor": 1.3, "mscale": None, "beta_fast": 16, "beta_slow": 2, "truncate": False}
    for rope in (None, read, LLAMA3, {"type": "linear", "factor": 4.0}, {"rope_type": "default", "rope_theta": 1e4}):
        assert rope_notes([str(edit(folder, rope_scaling=rope))]) == []
    edit(folder, rope_scaling={**YARN, "attn_factor": 0.878, "extrapolation_factor": None})
    (note,) = rope_notes([str(folder), str(folder)])
    assert "neither transformers nor vLLM reads, and that change nothing here: attn_factor = 0.878" in note
    assert "extrapolation_factor" not in note
    run = commandline.caller(monkeypatch, capsys, tmp_path)
    command = ("run", "--model", "model", "--task", "mini_aime", "--limit", 1, "--length", 16, "--budget", "all")
    for more in (("--dry-run",), ("--out", "out")):
        code, out, _ = run(*command, *more)
        assert code == 0
        assert "attn_factor = 0.878" in out


@pytest.mark.parametrize("keys", [{"model_type": "gpt2"}, {"quantization_config": {"quant_method": "awq"}}])
@pytest.mark.parametrize("dry", [True, False])
def test_a_run_refuses_before_it_has_a_folder(tmp_path, monkeypatch, capsys, keys, dry):
    edit(architectures.write(tmp_path / "model", "qwen3"), **keys)
    run = commandline.caller(monkeypatch, capsys, tmp_path)
    more = ["--dry-run"] if dry else []
    result = run("run", "--model", "model", "--task", "mini_aime", "--limit", 1, "--out", "out", *more)
    commandline.fails(result, "supported" if "model_type" in keys else "quantised")
    assert not (tmp_path / "out").exists()
