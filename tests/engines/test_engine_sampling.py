"""Draws: the right distribution, the same noise for the same key, nothing outside the nucleus."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.engines.base import Sampling
from hyperscale.engines.sampling import draw_tokens
from hyperscale.utils import counter_rng


def many(logits, sampling, count=200_000):
    keys = torch.full((count,), counter_rng.key(0, "problem", 0))
    return draw_tokens(logits.expand(count, -1), keys, torch.arange(count), sampling)


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2.0])
def test_distribution(temperature):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)) * 2
    tokens, _ = many(logits, Sampling(temperature=temperature))
    wanted = torch.softmax(logits[0].double() / temperature, -1).numpy()
    seen = np.bincount(tokens.numpy(), minlength=12) / len(tokens)
    spread = np.sqrt(wanted * (1 - wanted) / len(tokens))
    assert (np.abs(seen - wanted) < 5 * spread + 1e-9).all()


def test_nucleus():
    probabilities = torch.tensor([[0.05, 0.4, 0.1, 0.3, 0.15]])
    tokens, _ = many(probabilities.log(), Sampling(temperature=1.0, top_p=0.75))
    seen = np.bincount(tokens.numpy(), minlength=5) / len(tokens)
    assert seen[[0, 2]].sum() == 0
    np.testing.assert_allclose(seen[[1, 3, 4]], np.array([0.4, 0.3, 0.15]) / 0.85, atol=0.006)


def test_tiny_nucleus_is_greedy():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    tokens, _ = many(logits, Sampling(temperature=1.0, top_p=1e-6), count=1000)
    assert set(tokens.tolist()) == {int(logits.argmax())}


def test_greedy_and_logprob():
    logits = torch.randn(7, 30, generator=torch.Generator().manual_seed(2))
    keys = torch.zeros(7, dtype=torch.int64)
    tokens, logprobs = draw_tokens(logits, keys, keys, Sampling(temperature=0))
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(logprobs, torch.log_softmax(logits.double(), -1).max(-1).values, rtol=0, atol=1e-5)


def test_logprob_is_at_temperature_one():
    logits = torch.randn(1, 9)
    tokens, logprobs = many(logits, Sampling(temperature=3.0), count=100)
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0], -1)[tokens].double())


@given(st.lists(st.sampled_from([float("-inf"), -100.0, 0.0, 1.0]), min_size=1, max_size=6), st.integers(0, 2**62))
def test_never_a_token_without_mass(logits, key):
    if max(logits) == float("-inf"):
        logits[0] = 0.0
    rows = torch.tensor([logits]).expand(64, -1)
    tokens, _ = draw_tokens(rows, torch.full((64,), key), torch.arange(64), Sampling(temperature=1.0))
    assert all(logits[token] > -100 for token in tokens.tolist()) or max(logits) == -100.0


def test_splitmix64():
    # First outputs of the reference implementation (Vigna, splitmix64.c) for the seed 1234567.
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    state = torch.tensor([1234567])
    assert [int(counter_rng.mix(state, i)) % 2**64 for i in range(5)] == wanted
    assert (counter_rng.mix(state, torch.arange(5)) % 2**62).tolist() == [w % 2**62 for w in wanted]


def test_uniform_is_in_range_and_flat():
    draws = counter_rng.uniform(counter_rng.mix(torch.tensor([counter_rng.key("a", 1)]), torch.arange(100_000)))
    assert 0 <= float(draws.min()) < float(draws.max()) < 1
    counts = np.histogram(draws.numpy(), bins=50, range=(0, 1))[0]
    assert (np.abs(counts - 2000) < 5 * np.sqrt(2000)).all()
    assert float(counter_rng.uniform(torch.tensor(-1))) < 1


def test_keys_tell_parts_apart():
    assert (
        len(
            {
                counter_rng.key(1, "a"),
                counter_rng.key("1", "a"),
                counter_rng.key("1a"),
                counter_rng.key("a", 1),
                counter_rng.key(1, "a", 0),
            }
        )
        == 5
    )
