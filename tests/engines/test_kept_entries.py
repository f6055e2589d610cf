"""What each head holds when a chain ends: all of a full cache, and with any rule what the last step read."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from steered_tokenizer import EOS, SIZE, Marks

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.engines.torch.engine import TorchEngine

L = 45
REQUESTS = [Request("p", chain, tuple(range(20)), L, (L - 1,)) for chain in range(24)]
SAMPLING = Sampling(seed=3)


def generate(name, cr, sampling=SAMPLING, **options):
    model = tiny.with_gates(tiny.model(seed=2, vocab=SIZE, eos=EOS), window=5)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.5)  # flatter, so that chains end at all lengths
    engine = TorchEngine(model, Marks(), methods.create(name, cr=cr, **options), batch_size=5)
    return sorted(engine.generate(REQUESTS, sampling), key=lambda chain: chain.chain)


def test_a_full_cache_holds_all_but_the_last_token():
    for chain in generate("vanilla", 1):
        assert set(np.ravel(chain.kept)) == {chain.prompt_tokens + len(chain.token_ids) - 1}
        assert np.shape(chain.kept) == (2, 2)


@pytest.mark.parametrize("name", ["dms", "tova", "window", "knorm", "quest"])
def test_the_mean_over_heads_is_what_the_last_step_held(name):
    options = {"page": 4} if name == "quest" else {}
    chains = generate(name, 2, **options)
    assert {chain.finish for chain in chains} == {"stop", "length"}
    for chain in chains:
        assert np.mean(chain.kept) <= chain.trace.peak_kv[-1]
        if chain.finish == "length" and name != "quest":  # which reads less than it holds
            before, at_end = chain.trace.kv_reads[-2:]
            assert np.mean(chain.kept) == pytest.approx(at_end - before)


def test_an_answer_that_is_forced_at_the_end_does_not_count():
    free, forced = generate("dms", 2), generate("dms", 2, replace(SAMPLING, steering=Steering(answer=4)))
    assert [chain.kept for chain in forced] == [chain.kept for chain in free]
    assert any(chain.branches for chain in forced)
