"""Means over tokens with 95 % intervals over documents, by the project's bootstrap."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hyperscale.analysis.bootstrap import N_BOOT, confidence_intervals, draw_problems
from hyperscale.errors import ConfigError
from hyperscale.likelihood.scoring import Floats, TokenScores
from hyperscale.results.intervals import MIN_PROBLEMS

BUCKETS = 8


class Estimate(NamedTuple):
    """A mean, and the ends of its interval; NaN with fewer than `MIN_PROBLEMS` documents."""

    mean: float
    low: float
    high: float


class Bucket(NamedTuple):
    """Positions from ``first`` up to and with ``last``, counted from 0 in the document."""

    first: int
    last: int


def split_positions(prompt_tokens: int, length: int, buckets: int = BUCKETS) -> list[Bucket]:
    """The scored positions in buckets of nearly equal size, as many as there are positions at most."""
    edges = np.linspace(prompt_tokens, length, min(buckets, length - prompt_tokens) + 1).round().astype(int).tolist()
    return [Bucket(first, after - 1) for first, after in pairwise(edges)]


def estimate(by_document: Floats, seed: int = 0) -> Estimate:
    """The mean of a number of each document, (documents,), all of which count the same."""
    count = len(by_document)
    mean = float(by_document.mean())
    if count < MIN_PROBLEMS:
        return Estimate(mean, np.nan, np.nan)
    draws = draw_problems(count, N_BOOT, seed)
    low, high = confidence_intervals((draws @ by_document / count)[:, None])
    return Estimate(mean, float(low[0]), float(high[0]))


def excess(scores: TokenScores) -> Floats:
    """(documents, tokens), nats above the full cache's."""
    return scores.nats - scores.full_nats


def realised_cr(scores: TokenScores) -> float:
    """Entries of the full cache over those that were kept, summed over the scored tokens.

    Raises:
        ConfigError: None was kept, as by a method that has room for a fraction of a token.
    """
    if not scores.kept.any():
        raise ConfigError("no entry is kept within so few tokens, so there is no ratio: pass a larger --length")
    return float(scores.full.sum() * len(scores.kept) / scores.kept.sum())


def read_ratio(scores: TokenScores) -> float:
    """Entries that the full cache reads over those that were read; 1 where no step read anything."""
    reads = float(scores.reads.sum())
    return scores.full_reads * len(scores.reads) / reads if reads else 1.0
