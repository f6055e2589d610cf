"""Tiny random checkpoints whose heads are wide enough for vLLM's CPU kernel."""

import architectures
import tiny
import torch
from transformers.utils import logging

from hyperscale.methods.core.dms_gate import GateConfig, attach_gates

HEADS, KV_HEADS = 4, 2


def write(folder, family, *, source="projection", window=4, offset=0.0, head_dim=32, end_id=None, **settings):
    """A checkpoint of a family, with random DMS gates ("projection"), or a neuron to borrow ("neuron"), or neither.

    Returns the model, gates attached.
    """
    logging.disable_progress_bar()
    tokenizer = architectures.tokenizer(end_id)
    model = tiny.model(
        family,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=head_dim,
        vocab=(end_id or len(tokenizer) - 1) + 1,
        eos=tokenizer.eos_token_id,
    )
    if source:
        for name, value in GateConfig(window=window, cr=8, initial_offset=offset, **settings).to_hf().items():
            setattr(model.config, name, value)
    if source == "projection":
        generator = torch.Generator().manual_seed(0)
        for attention in attach_gates(model):
            weight = attention.dms_proj_alpha.requires_grad_(False).weight
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    elif source == "neuron":
        model.config.dms_separate_alpha = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
