"""Marks of thinking that are special tokens, in texts of the vLLM engine."""

import pytest
import scripted
from vllm_engines import needs_vllm

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = [needs_vllm, pytest.mark.e2e]

SCRIPT = ["<think>", "Hm. ", "</think>", "<|tool|>", "\\boxed{7}"]


def test_marks_are_text_and_other_special_tokens_are_not(tmp_path):
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    folder = scripted.write(tmp_path / "model", SCRIPT, special=["<think>", "</think>", "<|tool|>"])
    model, tokenizer = load_model(folder)
    ids = tuple(tokenizer.encode(f"<|user|>7?{scripted.TURN}"))
    asked = [Request("p", 0, ids, 20, (2, 3, 20))]
    seen = []
    engine = VllmEngine(str(folder), methods.create("vanilla", cr=1), batch_size=1)
    try:
        watched = engine.generate(asked, Sampling(0), lambda progress: seen.append(progress.text()))
        (chain,) = list(watched)
    finally:
        engine.close()
    (reference,) = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1)).generate(asked, Sampling(0))
    assert chain.text == reference.text == "<think>Hm. </think>\\boxed{7}"
    assert chain.trace.chars == reference.trace.chars
    assert seen[1] == "<think>Hm. "
