"""Checkpoints of retrofits."""

import json

import pytest
import tiny
import torch

from hyperscale.engines.loading import load_model
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.models.gate_files import read_gate_of
from hyperscale.models.weight_files import find_weight_files
from hyperscale.retrofit import checkpoints
from hyperscale.retrofit.checkpoints import save_checkpoint


def test_saving_leaves_the_positions_alone(tmp_path):
    model = tiny.model("llama")
    before = model.model.rotary_emb.inv_freq.clone()
    save_checkpoint(model, tmp_path)
    assert torch.equal(before, model.model.rotary_emb.inv_freq)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_saved_model_computes_what_the_one_in_memory_computes(tmp_path):
    import architectures

    model = tiny.with_gates(tiny.model("qwen3", vocab=len(architectures.tokenizer())))
    architectures.tokenizer().save_pretrained(tmp_path)
    save_checkpoint(model, tmp_path, **GateConfig(window=4, cr=8).to_hf())
    again, _ = load_model(tmp_path)
    ids = torch.arange(200)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert again.config.dms_cr == 8


def test_a_large_model_is_written_in_several_files(tmp_path, monkeypatch):
    """From a GPU each is copied to the machine's memory as a whole."""
    import architectures

    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 20_000)
    model = tiny.with_gates(tiny.model("qwen3", vocab=len(architectures.tokenizer())))
    architectures.tokenizer().save_pretrained(tmp_path)
    save_checkpoint(model, tmp_path, **GateConfig(window=4, cr=8).to_hf())
    files = find_weight_files(tmp_path)
    assert len(files) > 2
    largest = max(parameter.numel() for parameter in model.parameters())
    assert all(file.stat().st_size < max(2 * largest, 20_000) + 5_000 for file in files)  # and their headers
    again, _ = load_model(tmp_path)
    ids = torch.arange(200)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    stored, loaded = model.state_dict(), again.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(loaded[name], value.bfloat16().float()) for name, value in stored.items() if ".dms_" in name)


ROPES = {
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "original_max_position_embeddings": 2048},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
}


@pytest.mark.parametrize("kind", ROPES)
def test_versions_before_and_after_rope_parameters_read_the_same_positions(kind, tmp_path):
    """transformers 4 takes ``rope_theta`` and ``rope_scaling``, and 10,000 and none where they are missing."""
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = tiny.model("qwen3")
    plain.config.rope_parameters = dict(ROPES[kind])
    model = AutoModelForCausalLM.from_config(plain.config)
    save_checkpoint(model, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert stored["rope_theta"] == ROPES[kind]["rope_theta"]
    if kind == "default":
        assert stored.get("rope_scaling") is None
    else:
        assert stored["rope_scaling"] | {"rope_theta": stored["rope_theta"]} == stored["rope_parameters"]
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == model.config.rope_parameters
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("window", [2, 3, 4, 5, 16, 255, 256, 257, 512, 2048])
def test_nvidias_loader_finds_a_block_below_the_window(window, tmp_path):
    """It asserts 0 < block < window, and takes 256 if the key is missing. FlashAttention 2 takes multiples of 256."""
    model = tiny.with_gates(tiny.model("qwen3"), window=window)
    save_checkpoint(model, tmp_path, **GateConfig(window=window, cr=8).to_hf())
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    block = stored["dms_paged_attention_block_size"]
    assert 0 < block < stored["dms_window_size"]
    assert block == 256 or (window <= 256 and 2 * block >= window)
    # Its other keys, under its names.
    assert stored["dms_separate_alpha"] is True
    assert (stored["dms_alpha_scale"], stored["dms_initial_alpha_offset"]) == (100.0, 5.0)
    assert (stored["dms_alpha_per"], stored["dms_tau"], stored["dms_cr"]) == ("head", 0.1, 8.0)
    assert not (tmp_path / "dms_metadata.json").exists()
    assert read_gate_of(str(tmp_path)) == GateConfig(window=window, cr=8)


def test_fastdms_finds_its_metadata(tmp_path):
    gate = GateConfig(window=64, cr=4, separate=False).in_format("fastdms")
    save_checkpoint(tiny.model("llama"), tmp_path, **gate.to_hf())
    metadata = json.loads((tmp_path / "dms_metadata.json").read_text(encoding="utf-8"))
    assert metadata == {
        "window_size": 64,
        "alpha_scale": 100.0,
        "alpha_offset": 5.0,
        "target_cr": 4.0,
        "context_len": 4096,
    }
    assert read_gate_of(str(tmp_path)) == gate
    (tmp_path / "dms_metadata.json").unlink()  # config.json says it by itself
    assert read_gate_of(str(tmp_path)) == gate


def test_a_base_has_no_keys_of_gates(tmp_path):
    save_checkpoint(tiny.model("qwen2"), tmp_path)
    assert not any("dms_" in key for key in json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
