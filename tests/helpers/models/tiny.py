"""Tiny random models and a tokenizer, for tests of the cache, the methods and the engine."""

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from hyperscale.methods.core.dms_gate import GateConfig, attach_gates

CONFIGS = {
    "qwen3": Qwen3Config,
    "qwen2": Qwen2Config,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "gemma": GemmaConfig,
    "granite": GraniteConfig,
    "smollm3": SmolLM3Config,
    "phi3": Phi3Config,
}
#: What makes a family's tiny model its own: no window, multipliers that matter, a layer in two without RoPE. Output
#: layers that are tied to the embedding would repeat the prompt's last token.
OWN_SETTINGS = {
    "mistral": {"sliding_window": None},
    "gemma": {"tie_word_embeddings": False},
    "granite": {
        "embedding_multiplier": 2.0,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.2,
    },
    "smollm3": {"no_rope_layer_interval": 2, "tie_word_embeddings": False},
}
WITH_HEAD_DIM = ("qwen3", "llama", "mistral", "gemma")
#: Families in no list of the project's, with the settings of their tiny models.
UNLISTED = {
    "olmo2": {},  # norms of whole queries and keys, and norms behind attention instead of before it
    "starcoder2": {"use_bias": True},
    "cohere": {"logit_scale": 0.5, "use_qk_norm": True},  # neighbours are paired, attention and MLP side by side
    "glm": {"head_dim": 16, "partial_rotary_factor": 0.5},
    "phi": {"partial_rotary_factor": 0.5},  # its output projection has another name, and all layers have biases
    "gemma2": {
        "head_dim": 16,
        "layer_types": ["full_attention"] * 2,
        "attn_logit_softcapping": None,
        "query_pre_attn_scalar": 20,
    },
}


class Characters:
    """Token i is the character chr(33 + i); the last id ends a sequence and is special."""

    def __init__(self, size=64):
        self.size = size
        self.eos_token_id = size - 1

    def __len__(self):
        return self.size

    def decode(self, ids, skip_special_tokens=True, clean_up_tokenization_spaces=False):
        return "".join(chr(33 + i) for i in ids if i != self.eos_token_id)


def model(family="qwen3", *, layers=2, heads=4, kv_heads=2, head_dim=16, vocab=64, seed=0, eos=None, width=64, ff=96):
    torch.manual_seed(seed)
    extra = OWN_SETTINGS.get(family, {}) | ({"head_dim": head_dim} if family in WITH_HEAD_DIM else {})
    if family in UNLISTED:
        extra = {"tie_word_embeddings": False} | UNLISTED[family]
    config = (CONFIGS.get(family) or CONFIG_MAPPING[family])(
        hidden_size=width if family == "qwen3" else head_dim * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ff,
        vocab_size=vocab,
        max_position_embeddings=4096,
        initializer_range=0.3,
        eos_token_id=eos,
        bos_token_id=None,
        pad_token_id=None,
        **extra,
    )
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    made.generation_config.eos_token_id = eos
    return made


def with_gates(made, *, window=4, seed=0, offset=0.0, separate=True, per="head", **settings):
    """Random gates that evict about half of all entries (offset 0), more or fewer with another offset."""
    attentions = attach_gates(made, separate=separate)
    generator = torch.Generator().manual_seed(seed)
    for attention in attentions if separate else ():
        weight = attention.dms_proj_alpha.requires_grad_(False).weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        attention.requires_grad_(False)
    gate = GateConfig(window=window, initial_offset=offset, separate=separate, per=per, **settings)
    for name, value in gate.to_hf().items():
        setattr(made.config, name, value)
    return made
