"""Tiny random models and a tokenizer, for tests of the cache, the methods and the engine."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from hyperscale.methods.core.dms_gate import GateConfig, attach_gates

CONFIGS = {"qwen3": Qwen3Config, "qwen2": Qwen2Config, "llama": LlamaConfig}


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
    extra = {} if family == "qwen2" else {"head_dim": head_dim}
    config = CONFIGS[family](
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
