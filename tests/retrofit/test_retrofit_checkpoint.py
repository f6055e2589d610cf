"""Checkpoints of retrofits."""

import tiny
import torch

from hyperscale.engines.loading import load_model
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.retrofit.checkpoints import save_checkpoint


def test_saving_leaves_the_positions_alone(tmp_path):
    made = tiny.model("llama")
    before = made.model.rotary_emb.inv_freq.clone()
    save_checkpoint(made, tmp_path)
    assert torch.equal(before, made.model.rotary_emb.inv_freq)
    assert {p.dtype for p in made.parameters()} == {torch.float32}


def test_a_saved_model_computes_what_the_one_in_memory_computes(tmp_path):
    import architectures

    made = tiny.with_gates(tiny.model("qwen3", vocab=len(architectures.tokenizer())))
    architectures.tokenizer().save_pretrained(tmp_path)
    save_checkpoint(made, tmp_path, **GateConfig(window=4, cr=8).to_hf())
    loaded, _ = load_model(tmp_path)
    ids = torch.arange(200)[None]
    assert torch.equal(made(input_ids=ids).logits, loaded(input_ids=ids).logits)
    assert loaded.config.dms_cr == 8
