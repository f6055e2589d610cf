"""Draws tokens: what shapes their distribution, and noise that depends on the chain and the step alone."""

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import pad

from hyperscale.engines.base import Sampling
from hyperscale.errors import EngineError
from hyperscale.utils import counter_rng

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy, as in vLLM: logits divided by less may leave the range of float32."""

_BLOCK = 256  # tokens that are added up at once on a GPU


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings without a meaning.

    Raises:
        EngineError: A number is out of its range, or a stop string is empty, or steering asks for a negative number
            or goes with ends that are ignored.
    """
    for name, holds, range_ in (
        ("temperature", 0 <= sampling.temperature < inf, "at least 0"),
        ("top_p", 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("top_k", sampling.top_k >= 0, "at least 0, which keeps all tokens"),
        ("min_p", 0 <= sampling.min_p <= 1, "between 0 and 1"),
        ("repetition_penalty", 0 < sampling.repetition_penalty < inf, "above 0"),
    ):
        if not holds:
            raise EngineError(f"{name} must be {range_}, not {getattr(sampling, name)}")
    if "" in sampling.stop:
        raise EngineError("a stop string must not be empty")
    if min(sampling.steering.extend, sampling.steering.answer) < 0:
        raise EngineError("steering cannot extend thinking, or force answers, a negative number of times or tokens")
    if sampling.ignore_ends and sampling.steering:
        raise EngineError("steering acts where a chain ends, and ends are ignored: choose one of the two")


def draw_tokens(
    logits: Tensor, keys: Tensor, steps: Tensor, sampling: Sampling, present: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token per chain by inverting its cumulative distribution in vocabulary order.

    The distribution is made as transformers makes it, in this order: repetition penalty, temperature, top-k, top-p,
    min-p. vLLM's own sampler applies min-p before top-p, so there the two together keep fewer tokens.

    Args:
        logits: (chains, vocabulary), the vocabulary's unused rows already left out.
        keys: (chains,) int64, noise key of each chain.
        steps: (chains,) int64, number of tokens the chain already has.
        sampling: How tokens are drawn.
        present: (chains, vocabulary) bool, which tokens the prompt or the chain has; needed for a repetition penalty.

    Returns:
        Tokens (chains,) int64 and their log-probabilities, at temperature 1 and without penalty, (chains,) float64.
    """
    logits = logits.to(torch.float32)
    scores = logits
    if sampling.repetition_penalty != 1:
        assert present is not None, "a penalty on repetition needs to know what there is to repeat"
        scores = _penalize(logits, present, sampling.repetition_penalty)
    if sampling.temperature < GREEDY_BELOW:
        tokens = scores.argmax(-1)
    else:
        # The token on which a uniform number of the chain and step falls, in the order of the vocabulary. Each chain's
        # draw is a function of its own row, so batches do not matter.
        probabilities = token_probabilities(scores, sampling)
        uniform = counter_rng.uniform(counter_rng.mix(keys, steps))
        find = find_tokens_by_blocks if probabilities.is_cuda else find_tokens
        tokens = find(probabilities, uniform)
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    return tokens, logprobs.to(torch.float64)


def find_tokens(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The tokens on which uniform numbers fall.

    Args:
        probabilities: (chains, vocabulary), up to a factor for each chain.
        uniform: (chains,) float64, at least 0 and below 1.

    Returns:
        (chains,) int64.
    """
    # float64: in float32 a large vocabulary's cumulative sum would lose the tail.
    mass = probabilities.to(torch.float64).cumsum(-1)
    return _find(mass, uniform[:, None] * mass[:, -1:])[:, 0]


def find_tokens_by_blocks(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The same but for rounding in float64; a GPU adds up a row of a large vocabulary one number after another.

    So blocks are added up, all at once, and then the numbers of the one block that the uniform number falls on.
    """
    count, vocabulary = probabilities.shape
    blocks = pad(probabilities, (0, -vocabulary % _BLOCK)).view(count, -1, _BLOCK)
    mass = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniform[:, None] * mass[:, -1:]
    block = _find(mass, target)
    rest = target - pad(mass, (1, 0)).gather(1, block)  # without the mass of the blocks before
    within = blocks.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0].to(torch.float64).cumsum(-1)
    tokens = (block * _BLOCK + _find(within, rest))[:, 0]
    return tokens.clamp(max=vocabulary - 1)


def _find(mass: Tensor, target: Tensor) -> Tensor:
    """(chains, 1) int64, the first index whose cumulative ``mass`` is above ``target`` (chains, 1)."""
    total = mass[:, -1:]
    # A number below 1 times the total may round up to the total: it must still fall on something with mass.
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    # Of logits that are no numbers nothing can be drawn: the chain is refused by its log-probability (`LiveChain`).
    return torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[-1] - 1)


def token_probabilities(scores: Tensor, sampling: Sampling) -> Tensor:
    """What tokens are drawn by, up to a constant factor: softmax at the temperature, cut by top-k, top-p and min-p.

    Args:
        scores: (chains, vocabulary) float32, after the repetition penalty.
        sampling: How tokens are drawn, at a temperature above 0.

    Returns:
        (chains, vocabulary); tokens that are never drawn have 0.
    """
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))  # tokens as probable as the k-th stay, too
    probabilities = torch.softmax(scores, dim=-1)
    if sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        most = probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < sampling.min_p * most, 0.0)
    return probabilities


def mark_tokens(present: Tensor, tokens: Tensor) -> None:
    """Note, in place, that chains have tokens.

    Args:
        present: (chains, vocabulary + 1) bool; the last column takes ids beyond the vocabulary, which are never drawn.
        tokens: (chains, any) int64.
    """
    present.scatter_(1, tokens.clamp(max=present.shape[-1] - 1), value=True)


def _penalize(logits: Tensor, present: Tensor, penalty: float) -> Tensor:
    """Logits with those of the tokens that are there already made less."""
    return torch.where(present, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


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
