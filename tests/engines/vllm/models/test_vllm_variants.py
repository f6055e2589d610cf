"""Variants of the families in vLLM, against the torch engine: biases, head sizes, tied embeddings, scaled RoPE."""

import architectures
import commandline
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging
from vllm_engines import needs_vllm

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ModelError

pytestmark = [pytest.mark.e2e, needs_vllm]

LENGTH = 40
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 1e4,
}
VARIANTS = {
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "qwen3 tied": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3 yarn": ("qwen3", {"rope_parameters": YARN, "max_position_embeddings": 64}),
    "qwen2 yarn with factors": (
        "qwen2",
        {"rope_parameters": {**YARN, "attention_factor": 1.2, "beta_fast": 16}, "max_position_embeddings": 256},
    ),
    "qwen2 linear": ("qwen2", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama one KV head a query head": ("llama", {"num_key_value_heads": 4}),
    "llama wide heads": ("llama", {"head_dim": 64}),
    "llama scaled": ("llama", {"rope_parameters": LLAMA3}),
    "llama epsilon": ("llama", {"rms_norm_eps": 1e-2, "tie_word_embeddings": True}),
}


def write(folder, family, **keys):
    """A checkpoint of a family with other keys, every parameter at random: biases would be zero, and norms one."""
    logging.disable_progress_bar()
    words = architectures.tokenizer()
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    if family != "qwen2":
        shape["head_dim"] = 32
    config = tiny.CONFIGS[family](
        **{
            "intermediate_size": 96,
            "vocab_size": len(words),
            "max_position_embeddings": 256,
            "eos_token_id": words.eos_token_id,
            **shape,
            **keys,
        }
    )
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm" in name else 0.2 * noise)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def requests(tokenizer):
    texts = ("a", "The slit is narrow and the light is", "one and two and three and four, and so on and on it goes")
    return [Request(str(i), 0, tuple(tokenizer.encode(text)), LENGTH) for i, text in enumerate(texts)]


CASES = [(name, "vanilla") for name in VARIANTS] + [("qwen3 biases", "window"), ("llama biases", "window")]


@pytest.mark.parametrize(("variant", "method"), CASES)
def test_a_variant_generates_what_the_torch_engine_does(tmp_path, variant, method):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    family, keys = VARIANTS[variant]
    folder = write(tmp_path, family, **keys)
    model, tokenizer = load_model(folder)
    rule = methods.create(method, cr=1 if method == "vanilla" else 2)
    sampling = Sampling(temperature=0)
    wanted = {c.problem: c for c in TorchEngine(model, tokenizer, rule).generate(requests(tokenizer), sampling)}
    engine = VllmEngine(str(folder), rule, batch_size=4, max_tokens=128)
    try:
        made = {chain.problem: chain for chain in engine.generate(requests(tokenizer), sampling)}
    finally:
        engine.close()
    for problem, chain in wanted.items():
        assert made[problem].token_ids == chain.token_ids
        assert made[problem].logprob == pytest.approx(chain.logprob, abs=1e-2)


def test_what_vllm_would_drop_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    from hyperscale.engines.vllm.harness.engine import VllmEngine

    folder = write(tmp_path, "qwen2")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.bias"] = torch.ones(128)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"no place for: model.layers.0.self_attn.o_proj.bias"):
        VllmEngine(str(folder), methods.create("vanilla", cr=1))


def test_a_run_is_kept_within_the_context(tmp_path, monkeypatch, capsys):
    """Named lengths are refused and others left out before vLLM starts, in dry runs too."""
    folder = write(tmp_path / "model", "llama")
    run = commandline.caller(monkeypatch, capsys, tmp_path)
    options = ("run", "--engine", "vllm", "--model", folder, "--task", "mini_aime", "--limit", 1, "--out", "out")
    for mode in ((), ("--dry-run",)):
        commandline.fails(run(*options, "--length", 300, *mode), "--length 300", "256 tokens", "choose at most")
        commandline.fails(run(*options, *mode), "no length of mini_aime", "256 tokens")
    assert not (tmp_path / "out").exists()
