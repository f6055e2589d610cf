"""Which layers and heads keep their entries: the mean share that each head holds when a chain ends."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hyperscale.results.folder import Run
from hyperscale.results.points import Floats, SeriesKey, series_of
from hyperscale.results.samples import Sample


class KeptShares(NamedTuple):
    """What the heads of an arm hold at the ends of a task's chains.

    Attributes:
        series: The arm on a task, of a run.
        share: (layers, KV heads), entries held / those of a full cache, mean over chains, in [0, 1].
        chains: How many chains.
    """

    series: SeriesKey
    share: Floats
    chains: int


def collect_kept_shares(runs: Iterable[Run]) -> list[KeptShares]:
    """The shares of every arm on every task whose engine told them, in the order of the runs.

    Chains of one series whose shapes differ, as of two models under one name, are not united: the first shape stands.

    Args:
        runs: As `hyperscale.results.read` gives them.
    """
    groups: dict[SeriesKey, list[Floats]] = {}
    for run in runs:
        for sample in run.samples:
            if sample.kept:
                groups.setdefault(series_of(run.name, sample), []).append(_share(sample))
    found = []
    for series, shares in groups.items():
        alike = [share for share in shares if share.shape == shares[0].shape]
        found.append(KeptShares(series, np.mean(alike, axis=0), len(alike)))
    return found


def _share(sample: Sample) -> Floats:
    full = max(sample.prompt_tokens + sample.tokens - 1, 1)  # the last token is not processed
    return np.asarray(sample.kept, dtype=np.float64) / full
