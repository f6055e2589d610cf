"""Computes majority, pass@k and best of N, in expectation over subsets of W of the chains at hand.

Conventions (the paper states none for the vote; these are the ones its tables are consistent with): a majority vote
ignores chains without an answer and breaks ties in favour of the answer that occurred first. So W = 2 cannot beat
W = 1 by voting.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT_SUBSETS = 512
_SUBSET_SEED = 20250605


@lru_cache(maxsize=256)
def draw_subsets(n: int, width: int) -> NDArray[np.int64]:
    """Subsets of ``width`` of n chains, each in chain order: all if at most 512, else 512 drawn with a fixed seed.

    Returns:
        (subsets, width), indices into the chains.
    """
    if not 1 <= width <= n:
        raise ValueError(f"no subset of {width} among {n} chains")
    if comb(n, width) <= EXACT_SUBSETS:
        return np.array(list(combinations(range(n), width)), dtype=np.int64)
    rng = np.random.default_rng([_SUBSET_SEED, n, width])
    chains = rng.random((EXACT_SUBSETS, n)).argsort(axis=1)[:, :width]
    return np.sort(chains, axis=1).astype(np.int64)


def majority_accuracy(codes: NDArray[np.int64], correct: NDArray[np.bool_], width: int) -> NDArray[np.float64]:
    """Probability that the majority vote of a random subset of ``width`` chains is right, for many problems at once.

    Args:
        codes: (problems, chains), equal answers of a problem have equal codes; -1 is no answer.
        correct: (problems, chains), whether the chain's answer is right.
        width: W.

    Returns:
        (problems,), in [0, 1]. Exact where there are at most 512 subsets.
    """
    index = draw_subsets(codes.shape[1], width)
    votes = codes[:, index]  # (problems, subsets, width)
    # How many chains of the subset give the same answer as each of them; chains without an answer win nothing.
    tally = np.zeros(votes.shape, dtype=np.int16)
    for position in range(width):
        tally += votes == votes[..., position, None]
    tally[votes < 0] = 0
    winner = tally.argmax(axis=-1)[..., None]  # argmax returns the first maximum: ties to the first occurring answer
    right = np.take_along_axis(correct[:, index] & (votes >= 0), winner, axis=-1)[..., 0]
    return np.asarray(right.mean(axis=1), dtype=np.float64)


def encode_answers(answers: Sequence[str | None]) -> list[int]:
    """Answers as codes in order of first occurrence; -1 is no answer."""
    codes: dict[str, int] = {}
    return [-1 if answer is None else codes.setdefault(answer, len(codes)) for answer in answers]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased probability that at least one of k chains is right, from n chains of which c are.

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1: 1 - C(n-c, k) / C(n, k). For k = n this is pass@all.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def best_of_n(scores: Sequence[float | None], correct: Sequence[Any], width: int) -> float:
    """Probability that the best-scored of a random subset of ``width`` chains is right; exact, whatever the width.

    Ties go to the earlier chain, and a chain without a score is chosen only where no chain has one. The chain of rank r
    (from 0) is the best of a subset iff it is in it and the rest come from the n - 1 - r chains behind it.

    Args:
        scores: Score of each chain, in chain order; None if it has no answer.
        correct: Whether each is right.
        width: W, at most the number of chains.
    """
    n = len(scores)
    if not 1 <= width <= n:
        raise ValueError(f"no best of {width} among {n} chains")
    order = sorted(range(n), key=lambda i: (scores[i] is None, -(scores[i] or 0.0), i))
    hits = sum(comb(n - 1 - rank, width - 1) for rank, i in enumerate(order) if correct[i])
    return hits / comb(n, width)
