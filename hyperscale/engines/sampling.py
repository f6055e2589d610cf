"""Draws tokens: temperature, top-p, and noise that depends on the chain and the step alone."""

import torch
from torch import Tensor

from hyperscale.engines.base import Sampling
from hyperscale.errors import EngineError
from hyperscale.utils import counter_rng


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings without a meaning.

    Raises:
        EngineError: Temperature is negative, or top-p outside (0, 1], or a stop string is empty, or steering asks for
            a negative number.
    """
    if not sampling.temperature >= 0:
        raise EngineError(f"temperature must be at least 0, not {sampling.temperature}")
    if not 0 < sampling.top_p <= 1:
        raise EngineError(f"top_p must be above 0 and at most 1, not {sampling.top_p}")
    if "" in sampling.stop:
        raise EngineError("a stop string must not be empty")
    if min(sampling.steering.extend, sampling.steering.answer) < 0:
        raise EngineError("steering cannot extend thinking, or force answers, a negative number of times or tokens")


def draw_tokens(logits: Tensor, keys: Tensor, steps: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token per chain by inverting its cumulative distribution in vocabulary order.

    Args:
        logits: (chains, vocabulary), the vocabulary's unused rows already left out.
        keys: (chains,) int64, noise key of each chain.
        steps: (chains,) int64, number of tokens the chain already has.
        sampling: Temperature and top-p.

    Returns:
        Tokens (chains,) int64 and their log-probabilities at temperature 1 (chains,) float64.
    """
    logits = logits.to(torch.float32)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        # The token on which a uniform number of the chain and step falls, in the order of the vocabulary. Each chain's
        # draw is a function of its own row, so batches do not matter.
        probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
        if sampling.top_p < 1:
            probabilities = _nucleus(probabilities, sampling.top_p)
        # float64: in float32 a large vocabulary's cumulative sum would lose the tail.
        mass = probabilities.to(torch.float64).cumsum(-1)
        total = mass[:, -1:]
        target = counter_rng.uniform(counter_rng.mix(keys, steps))[:, None] * total
        # uniform < 1, but times the total it may round up to the total: it must still fall on a token with mass.
        target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(mass, target, right=True)[:, 0]
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    return tokens, logprobs.to(torch.float64)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most probable tokens whose mass reaches ``top_p``."""
    descending, indices = probabilities.sort(dim=-1, descending=True, stable=True)
    # A token stays if the tokens before it do not reach top_p without it; so the first always stays.
    mass_before = descending.to(torch.float64).cumsum(-1) - descending
    return torch.zeros_like(probabilities).scatter(1, indices, descending.masked_fill(mass_before >= top_p, 0.0))


def score_tokens(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Score tokens that are forced.

    Args:
        logits: (chains, vocabulary), of the whole output layer.
        tokens: (chains,) int64.

    Returns:
        Their log-probabilities at temperature 1 (chains,) float64, and whether each is the most probable (chains,).
    """
    scores = torch.log_softmax(logits.to(torch.float32), dim=-1)
    logprobs = scores.gather(1, tokens[:, None])[:, 0].to(torch.float64)
    return logprobs, scores.argmax(-1) == tokens
