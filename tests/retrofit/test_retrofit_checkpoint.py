"""Checkpoints of retrofits."""

import tiny
import torch

from hyperscale.engines.loading import load_model
from hyperscale.methods.core.dms_gate import GateConfig
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
