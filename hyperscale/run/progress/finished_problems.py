"""Counts right answers so far without favouring what finishes first: at each L, over problems that are finished there.

Quick chains finish first, and easy problems are quick: of the chains that have finished, far more are right than will
be in the end. So a problem counts at an L as soon as all of the arm's chains that tell of that L have finished, and two
arms are compared on the problems that are finished in both. Every chain counts alone, as at W = 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

from hyperscale.results.samples import Sample
from hyperscale.results.truncation import truncate

ProblemKey = tuple[str, str, int]
"""A task, a problem of it, and a seed."""


class RightAt(NamedTuple):
    """Right answers at one L.

    Attributes:
        L: The most new tokens.
        problems: Problems, counted once a seed, that are finished at this L.
        right: Share of right answers, the mean over them.
        reference: The same of another arm, on the same problems; None if it does not have them all.
    """

    L: int
    problems: int
    right: float
    reference: float | None = None


class FinishedProblems:
    """The problems of one arm that are finished at each L.

    Args:
        chains_at: How many chains of a problem tell of an L, by task and L.
    """

    def __init__(self, chains_at: Mapping[tuple[str, int], int]) -> None:
        self._chains_at = chains_at
        self._counts: dict[tuple[ProblemKey, int], list[int]] = {}  # chains and right ones
        self._right: dict[int, dict[ProblemKey, float]] = {L: {} for L in sorted({L for _, L in chains_at})}

    def add(self, sample: Sample) -> None:
        """Count a finished chain."""
        problem = (sample.task, sample.problem, sample.seed)
        for (task, L), chains in self._chains_at.items():
            chain = truncate(sample, L) if task == sample.task else None
            if chain is None:
                continue
            count = self._counts.setdefault((problem, L), [0, 0])
            count[0] += 1
            count[1] += bool(chain.vote.correct)
            if count[0] == chains:
                self._right[L][problem] = count[1] / chains

    def right_at(self, reference: "FinishedProblems | None" = None) -> tuple[RightAt, ...]:
        """The share of right answers at every L that has a finished problem, ascending."""
        shares = []
        for L, right in self._right.items():
            if right:
                other = reference._right.get(L, {}) if reference else {}
                same = [other[problem] for problem in right] if right.keys() <= other.keys() else None
                shares.append(RightAt(L, len(right), _mean(list(right.values())), _mean(same) if same else None))
        return tuple(shares)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
