"""The memory that a retrofit is said to take, against peaks measured on a GPU."""

import pytest

from hyperscale.retrofit.memory_estimate import GIB, count_parameters, estimate_memory

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


# Peaks of `benchmarks/retrofit_speed.py`, the last but one of `hyperscale retrofit`, on an H200 with torch 2.11.
@pytest.mark.parametrize(
    ("sizes", "rows", "length", "weights", "frozen", "kept", "measured"),
    [
        (SMOLLM2, 16, 2048, "float32", False, False, 6.4),
        (SMOLLM2, 16, 2048, "float32", False, True, 26.0),
        (SMOLLM2, 32, 2048, "bfloat16", False, False, 7.9),
        (QWEN, 1, 8192, "float32", False, False, 30.0),
        (SMOLLM2, 16, 2048, "float32", True, False, 3.21),
        (QWEN, 1, 8192, "float32", True, False, 6.3),
    ],
)
def test_the_estimate_is_within_a_tenth_of_measured_peaks(sizes, rows, length, weights, frozen, kept, measured):
    from transformers import AutoConfig

    config = AutoConfig.for_model(**sizes, tie_word_embeddings=True)
    estimate = estimate_memory(count_parameters(config), weights, config, rows, length, frozen=frozen, kept=kept)
    assert (estimate.weights + estimate.activations) / GIB == pytest.approx(measured, rel=0.1)
