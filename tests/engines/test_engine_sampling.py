"""Draws: the right distribution, the same noise for the same key, nothing outside the nucleus."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process

from hyperscale.engines.base import Sampling
from hyperscale.engines.sampling import (
    check_sampling,
    draw_tokens,
    find_tokens,
    find_tokens_by_blocks,
    mark_tokens,
    token_probabilities,
)
from hyperscale.errors import EngineError
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


@pytest.mark.parametrize("vocabulary", [1, 65, 256, 257, 5000, 151_665])
def test_blocks_find_the_same_tokens(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(64, vocabulary, generator=generator) * torch.arange(1.0, 65.0)[:, None]
    logits[::3, : vocabulary // 2] = float("-inf")  # blocks without mass, before and after the others
    logits[1::3, (vocabulary + 1) // 2 :] = float("-inf")
    probabilities = logits.softmax(-1)
    mass = probabilities.double().cumsum(-1)
    drawn = torch.rand(64, dtype=torch.float64, generator=generator)
    last = torch.full_like(drawn, 1 - 2**-53)
    for uniform in (drawn, torch.zeros_like(drawn), last):
        tokens, wanted = (find(probabilities, uniform) for find in (find_tokens_by_blocks, find_tokens))
        # Next to 1, where tokens have less mass than float64 rounds away, it may be another of them.
        near = mass.gather(1, torch.stack([tokens, wanted], 1)).diff().abs() < 1e-14
        assert near.all() if uniform is last else torch.equal(tokens, wanted)
        assert (probabilities.gather(1, tokens[:, None]) > 0).all()
    # Of what is no number something is found all the same, for its log-probability to refuse it.
    assert find_tokens_by_blocks(torch.full((1, vocabulary), float("nan")), drawn[:1]).tolist() == [vocabulary - 1]


def random_rows(seed, rows=8, vocabulary=50):
    """Logits, and the ids of prompts and chains, some of which no row stands for."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 3
    return logits, torch.randint(0, vocabulary, (rows, 30), generator=generator)


def present_in(ids, vocabulary):
    present = torch.zeros(len(ids), vocabulary + 1, dtype=torch.bool)
    mark_tokens(present, ids)
    return present[:, :vocabulary]


def by_transformers(logits, ids, sampling):
    """The distribution by transformers' own processors, in the order in which ``generate`` has them."""
    processors = logits_process.LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    processors.append(logits_process.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(logits_process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(logits_process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(logits_process.MinPLogitsWarper(sampling.min_p))
    return torch.softmax(processors(ids, logits), dim=-1)


SHAPES = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 1000},
    {"min_p": 0.02},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"top_k": 5, "top_p": 0.8},
    {"top_p": 0.9, "min_p": 0.1},
    {"top_k": 20, "top_p": 0.95, "min_p": 0.03, "repetition_penalty": 1.05},
]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_distribution_is_that_of_transformers(shape, temperature):
    sampling = Sampling(temperature=temperature, **shape)
    for seed in range(20):
        logits, ids = random_rows(seed)
        present = present_in(ids, logits.shape[1])
        scores = logits
        if sampling.repetition_penalty != 1:
            drawn = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
            scores = torch.where(present, drawn, logits)
        found = token_probabilities(scores, sampling)
        wanted = by_transformers(logits, ids, sampling)
        torch.testing.assert_close(found / found.sum(-1, keepdim=True), wanted, rtol=1e-4, atol=1e-6)
        # Draws fall on what is left, and greedy ones on the best of it.
        keys = torch.arange(len(logits))
        tokens, logprobs = draw_tokens(logits, keys, keys, sampling, present)
        assert (wanted.gather(1, tokens[:, None]) > 0).all()
        torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0].double())
        greedy, _ = draw_tokens(logits, keys, keys, Sampling(temperature=0, **shape), present)
        assert torch.equal(greedy, by_transformers(logits, ids, Sampling(1.0, **shape)).argmax(-1))


def test_draws_have_that_distribution():
    sampling = Sampling(temperature=0.9, top_k=6, min_p=0.1, repetition_penalty=1.5)
    logits, ids = random_rows(3, rows=1, vocabulary=12)
    count = 100_000
    keys = torch.full((count,), 17)
    present = present_in(ids[:, :4], 12).expand(count, -1)
    tokens, _ = draw_tokens(logits.expand(count, -1), keys, torch.arange(count), sampling, present)
    wanted = by_transformers(logits, ids[:, :4], sampling)[0].double().numpy()
    seen = np.bincount(tokens.numpy(), minlength=12) / count
    assert 1 < (wanted > 0).sum() < 6
    assert (np.abs(seen - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / count) + 1e-9).all()


def test_tokens_beyond_the_vocabulary_are_noted_nowhere():
    present = torch.zeros(2, 6, dtype=torch.bool)
    mark_tokens(present, torch.tensor([[0, 4, 5, 900], [2, 2, 900, 2]]))
    assert present[:, :5].tolist() == [[True, False, False, False, True], [False, False, True, False, False]]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature):
    logits, _ = random_rows(0)
    tokens, _ = draw_tokens(logits, torch.arange(8), torch.arange(8), Sampling(temperature=temperature))
    assert torch.equal(tokens, logits.argmax(-1))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("temperature", value) for value in (-0.1, float("nan"), float("inf"))),
        *(("top_p", value) for value in (0, 1.1, float("nan"))),
        ("top_k", -1),
        *(("min_p", value) for value in (-0.1, 1.5, float("nan"))),
        *(("repetition_penalty", value) for value in (0, -1, float("nan"), float("inf"))),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, value):
    with pytest.raises(EngineError, match=f"^{setting} must be .*, not {value}"):
        check_sampling(Sampling(**{setting: value}))


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
