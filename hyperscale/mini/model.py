"""Defines the built-in model, a small Qwen3 that is trained from scratch on the built-in benchmarks."""

from pathlib import Path
from typing import Any

from hyperscale.mini.vocab import END, ID, PAD, PADDED_SIZE, TOKENS

#: Tokens of context the model is trained on.
CONTEXT = 2560
WEIGHTS = Path(__file__).parent / "weights"


def config(**overrides: Any) -> Any:
    """A transformers configuration of the built-in model; overrides make it smaller for tests."""
    from transformers import Qwen3Config

    settings: dict[str, Any] = {
        "vocab_size": PADDED_SIZE,
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "intermediate_size": 768,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "pad_token_id": ID[PAD],
        "bos_token_id": None,
        "eos_token_id": ID[END],
    }
    return Qwen3Config(**(settings | overrides))


def build_model(seed: int, **overrides: Any) -> Any:
    """A freshly initialised model."""
    import torch
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config(**overrides))


def save_model(model: Any, folder: Path, **settings: Any) -> None:
    """Write configuration, bfloat16 weights and tokenizer; ``settings`` join the configuration.

    Rows of the embedding beyond the vocabulary are zeroed: they are never drawn.
    """
    import torch

    from hyperscale.mini.vocab import save_tokenizer
    from hyperscale.retrofit.checkpoints import save_checkpoint

    with torch.no_grad():
        model.get_input_embeddings().weight[len(TOKENS) :] = 0
    save_checkpoint(model, folder, **settings)
    save_tokenizer(folder)
