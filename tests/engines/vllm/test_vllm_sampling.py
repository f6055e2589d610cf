"""The shape of the distribution that tokens are drawn from, against vLLM's own code on the CPU."""

import pytest
import torch
import vllm_checkpoints
from vllm_engines import needs_vllm

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.sampling import mark_tokens, token_probabilities
from hyperscale.engines.torch.engine import TorchEngine

pytestmark = needs_vllm
ROWS, VOCABULARY = 8, 60


def by_vllm(logits, prompts, outputs, sampling):
    """As vLLM's sampler does it: penalties, temperature, min-p, top-k and top-p."""
    from vllm.model_executor.layers.utils import apply_penalties
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    none = torch.zeros(len(logits))
    penalties = torch.full((len(logits),), sampling.repetition_penalty)
    scores = apply_penalties(logits.clone(), prompts, outputs, none, none, penalties) / sampling.temperature
    probabilities = scores.softmax(-1)  # as vLLM's MinPLogitsProcessor
    scores[probabilities < sampling.min_p * probabilities.amax(-1, keepdim=True)] = -float("inf")
    k = torch.full((len(logits),), sampling.top_k or VOCABULARY)
    p = torch.full((len(logits),), sampling.top_p)
    return apply_top_k_top_p_pytorch(scores, k, p).softmax(-1)


@pytest.mark.parametrize(
    "shape",
    [
        {"top_k": 4},
        {"top_k": 9, "top_p": 0.8},
        {"min_p": 0.05},
        {"top_k": 30, "min_p": 0.02, "repetition_penalty": 1.2},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8, "top_p": 0.9},
    ],
    ids=str,
)
def test_the_distribution_is_vllms(shape):
    """All but min-p together with top-p, which vLLM applies in the other order than transformers."""
    sampling = Sampling(temperature=0.7, **shape)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(ROWS, VOCABULARY, generator=generator) * 3
        prompts = torch.randint(0, VOCABULARY, (ROWS, 11), generator=generator)
        outputs = torch.randint(0, VOCABULARY, (ROWS, 7), generator=generator)
        present = torch.zeros(ROWS, VOCABULARY + 1, dtype=torch.bool)
        mark_tokens(present, torch.cat([prompts, outputs], dim=1))
        wanted = by_vllm(logits, prompts, outputs, sampling)
        penalty = sampling.repetition_penalty
        scores = torch.where(present[:, :-1], torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        found = token_probabilities(scores, sampling)
        torch.testing.assert_close(found / found.sum(-1, keepdim=True), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["vanilla", "dms"])
def test_an_end_beyond_a_gap_is_drawn_as_in_the_torch_engine(tmp_path, method):
    """The tokenizer's last ids lie beyond its length, and some rows below them are nobody's."""
    from hyperscale.engines.vllm.harness.engine import VllmEngine

    end_id = 300
    source = "projection" if method == "dms" else ""
    vllm_checkpoints.write(tmp_path, "qwen3", source=source, end_id=end_id, offset=1.0)
    model, words = load_model(tmp_path)
    compression = methods.create(method, cr=8 if method == "dms" else 1)
    requests = [Request(f"p{n}", 0, (70, 71 + n), 100) for n in range(8)]
    sampling = Sampling(temperature=3.0, repetition_penalty=1.05, seed=1)
    wanted = {c.problem: c for c in TorchEngine(model, words, compression, batch_size=8).generate(requests, sampling)}
    engine = VllmEngine(str(tmp_path), compression, batch_size=8)
    try:
        found = {chain.problem: chain for chain in engine.generate(requests, sampling)}
    finally:
        engine.close()
    same = sum(found[problem].token_ids == chain.token_ids for problem, chain in wanted.items())
    assert same >= len(requests) - 1  # a draw may fall on the other side of a boundary by rounding
    for problem, chain in wanted.items():
        if found[problem].token_ids == chain.token_ids:
            assert found[problem].logprob == pytest.approx(chain.logprob, abs=1e-2)
    drawn = {token for chain in found.values() for token in chain.token_ids}
    assert end_id in drawn
    assert drawn <= set(words.get_vocab().values())
