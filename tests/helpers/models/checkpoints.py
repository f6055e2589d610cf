"""A set of tiny random checkpoints in the built-in model's vocabulary, for tests of the whole line."""

import torch

from hyperscale.methods.core.dms_gate import GateConfig, attach_gates
from hyperscale.mini.model import build_model, save_model

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
}


def write(folder, crs=(4, 8)):
    """``base/`` and ``dms<CR>/`` with random weights and gates; most of their chains are short."""
    save_model(build_model(0, **SMALL), folder / "base")
    for cr in crs:
        model = build_model(0, **SMALL)
        for attention in attach_gates(model):
            torch.nn.init.normal_(attention.dms_proj_alpha.weight, std=0.05)
        save_model(model, folder / f"dms{cr}", **GateConfig(window=4, cr=cr).to_hf())
    return folder
