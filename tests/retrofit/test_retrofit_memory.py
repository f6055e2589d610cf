"""The memory that a retrofit is said to take, against peaks measured on a GPU."""

from types import SimpleNamespace

import pytest
import torch

from hyperscale.retrofit.attention.fused import LARGEST_DIM
from hyperscale.retrofit.attention.packed_attention import attends_fused, choose_fused
from hyperscale.retrofit.memory_estimate import GIB, count_parameters, estimate_memory, head_dim_of

SMOLLM2 = {
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "vocab_size": 49152,
}
QWEN = {
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "vocab_size": 151936,
}


# Peaks of `benchmarks/retrofit_speed.py` in GiB, on an H200 with torch 2.11: those with FlexAttention, the last but one
# of them of `hyperscale retrofit`, and those with the project's own kernels.
@pytest.mark.parametrize(
    ("fused", "sizes", "rows", "length", "weights", "train", "kept", "measured"),
    [
        (False, SMOLLM2, 16, 2048, "float32", "all", False, 6.4),
        (False, SMOLLM2, 16, 2048, "float32", "all", True, 26.0),
        (False, SMOLLM2, 32, 2048, "bfloat16", "all", False, 7.9),
        (False, QWEN, 1, 8192, "float32", "all", False, 30.0),
        (False, SMOLLM2, 16, 2048, "float32", "gates", False, 3.21),
        (False, QWEN, 1, 8192, "float32", "gates", False, 6.3),
        (True, SMOLLM2, 16, 2048, "float32", "all", False, 6.7),
        (True, SMOLLM2, 16, 2048, "float32", "all", True, 21.3),
        (True, SMOLLM2, 8, 4096, "float32", "all", False, 6.0),
        (True, QWEN, 1, 8192, "float32", "all", False, 30.0),
        (True, QWEN, 1, 8192, "float32", "gates", False, 6.3),
        (True, QWEN, 1, 8192, "float32", "lora", False, 6.3),
    ],
)
def test_the_estimate_is_within_a_tenth_of_measured_peaks(fused, sizes, rows, length, weights, train, kept, measured):
    from transformers import AutoConfig

    config = AutoConfig.for_model(**sizes, tie_word_embeddings=True)
    estimate = estimate_memory(
        count_parameters(config),
        weights,
        config,
        rows,
        length,
        frozen=train != "all",
        rank=16 if train == "lora" else 0,
        kept=kept,
        fused=fused,
    )
    assert (estimate.weights + estimate.activations) / GIB == pytest.approx(measured, rel=0.1)


QWEN_7B = {
    **QWEN,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "vocab_size": 152064,
}
QWEN_32B = {
    **QWEN_7B,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
}


# Of the same benchmark, a row of 8,192 tokens a GPU, and with four GPUs of `benchmarks/retrofit_large_checkpoint.py`.
@pytest.mark.parametrize(
    ("sizes", "weights", "train", "gpus", "measured"),
    [
        (QWEN_7B, "float32", "gates", 1, 19.2),
        (QWEN_7B, "bfloat16", "all", 1, 101.2),
        (QWEN_7B, "float32", "all", 2, 74.3),
        (QWEN_7B, "bfloat16", "all", 2, 58.9),
        (QWEN_32B, "float32", "gates", 1, 75.2),
        (QWEN_32B, "float32", "gates", 4, 33.3),
        (QWEN_32B, "bfloat16", "all", 4, 119.8),
    ],
)
def test_the_estimate_holds_for_large_models_and_several_gpus(sizes, weights, train, gpus, measured):
    from transformers import AutoConfig

    config = AutoConfig.for_model(**sizes, tie_word_embeddings=False)
    count = count_parameters(config)
    estimate = estimate_memory(count, weights, config, 1, 8192, frozen=train != "all", gpus=gpus, fused=True)
    assert (estimate.weights + estimate.activations) / GIB == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("kept", "measured"), [(False, 7.3), (True, 22.0)])
def test_the_estimate_knows_of_recorded_steps(kept, measured):
    """Peaks of the same benchmark, whose steps are CUDA graphs unless it is told otherwise."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(**SMOLLM2, tie_word_embeddings=True)
    weights = count_parameters(config)
    launched, recorded = (
        estimate_memory(weights, "float32", config, 16, 2048, kept=kept, fused=True, recorded=recorded)
        for recorded in (False, True)
    )
    assert (recorded.weights + recorded.activations) / GIB == pytest.approx(measured, rel=0.1)
    assert recorded.weights - launched.weights == 4 * weights  # their gradients are there all the time
    frozen, several = {"frozen": True}, {"gpus": 2}
    for without in (frozen, several):
        both = [
            estimate_memory(weights, "float32", config, 16, 2048, fused=True, recorded=r, **without) for r in (0, 1)
        ]
        assert both[0] == both[1]


def test_the_kernels_that_attend_are_known_before_there_is_a_model(monkeypatch):
    """From the heads and the device's shared memory, as for the model that trains."""
    cuda, kib = torch.device("cuda"), 1024
    for shared, head_dim, fused in (
        (227 * kib, 64, True),
        (227 * kib, 128, True),
        (227 * kib, LARGEST_DIM + 1, False),
        (163 * kib, 128, True),
        (99 * kib, 64, False),
    ):
        properties = SimpleNamespace(shared_memory_per_block_optin=shared)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, found=properties: found)
        layer = SimpleNamespace(self_attn=SimpleNamespace(head_dim=head_dim))
        model = SimpleNamespace(model=SimpleNamespace(layers=[layer]))
        assert attends_fused(head_dim, cuda) is choose_fused(model, cuda) is fused
        assert not attends_fused(head_dim, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    assert not attends_fused(64, cuda)


def test_heads_are_as_large_as_a_configuration_says():
    from transformers import AutoConfig

    assert head_dim_of(AutoConfig.for_model(**QWEN)) == 128
    assert head_dim_of(AutoConfig.for_model("qwen3", hidden_size=64, num_attention_heads=4, head_dim=32)) == 32
