"""Makes one verdict of W chains by a strategy, chosen by name. Strategies read stored chains and generate nothing."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.errors import ConfigError
from hyperscale.scoring.voting import subsets

Floats = NDArray[np.float64]
LOGPROB = "logprob"


class Vote(NamedTuple):
    """The vote of one chain, cut to some L.

    Attributes:
        answer: The answer it states; None if it states none.
        correct: Whether that is right.
        score: The score by the strategy's scorer; None without a scorer or an answer.
    """

    answer: str | None
    correct: bool
    score: float | None = None


class Strategy(ABC):
    """A rule by which W chains of a problem make one verdict.

    Attributes:
        name: As written in the column ``vote`` of points.csv.
        scorer: Name of the scorer it needs, or None.
        compares_answers: Whether it matters which answers are equal: then `candidates.Candidates` unites them first.
    """

    name: str
    scorer: str | None = None
    compares_answers: bool = False

    def widths(self, chains: int, planned: Collection[int] = ()) -> list[int]:
        """Values of W for which points are made, where a problem has at most so many chains.

        Args:
            chains: The number of chains.
            planned: Values of W that the run was asked for; powers of two are always among the result.
        """
        return sorted({1 << k for k in range(chains.bit_length())} | {W for W in planned if chains >= W})

    @abstractmethod
    def accuracy(self, problems: Sequence[Sequence[Vote]], width: int) -> Floats:
        """Expected verdict over the subsets of ``width`` chains of each problem.

        Args:
            problems: Votes of each problem's chains, in chain order, at least ``width`` of them.
            width: W.

        Returns:
            (problems,), in [0, 1].
        """


class Majority(Strategy):
    """The most frequent answer of W chains, ties to the first occurring: `subsets.majority_accuracy`."""

    name = "majority"
    compares_answers = True

    def accuracy(self, problems: Sequence[Sequence[Vote]], width: int) -> Floats:
        """See `Strategy.accuracy`; problems with equally many chains are computed together."""
        result = np.empty(len(problems))
        for size in {len(votes) for votes in problems}:
            places = [i for i, votes in enumerate(problems) if len(votes) == size]
            codes = np.array([subsets.encode_answers([vote.answer for vote in problems[i]]) for i in places])
            correct = np.array([[vote.correct for vote in problems[i]] for i in places])
            result[places] = subsets.majority_accuracy(codes, correct, width)
        return result


class PassAtK(Strategy):
    """Whether any of W chains is right, unbiased (Chen et al. 2021): `subsets.pass_at_k` with k = W."""

    name = "pass@k"

    def accuracy(self, problems: Sequence[Sequence[Vote]], width: int) -> Floats:
        """See `Strategy.accuracy`."""
        return np.array([subsets.pass_at_k(len(v), sum(vote.correct for vote in v), width) for v in problems])


class PassAtAll(PassAtK):
    """Whether any of all chains is right: pass@k where k is the number of chains at hand, so one W, no subsets."""

    name = "pass@all"

    def widths(self, chains: int, planned: Collection[int] = ()) -> list[int]:
        """All the chains, if there are any."""
        return [chains] if chains else []


class MeanAtK(Strategy):
    """The accuracy of single chains, whatever W: what W chains cost and a lone one would achieve."""

    name = "mean@k"

    def accuracy(self, problems: Sequence[Sequence[Vote]], width: int) -> Floats:
        """See `Strategy.accuracy`; the expected mean over a subset is the mean over all."""
        return np.array([sum(vote.correct for vote in votes) / len(votes) for votes in problems])


class Likelihood(MeanAtK):
    """The verdict on a problem that is scored by likelihood: it has one, so W is 1, and nothing votes."""

    name = "likelihood"

    def widths(self, chains: int, planned: Collection[int] = ()) -> list[int]:
        """One."""
        return [1] if chains else []


class BestOfN(Strategy):
    """The one of W chains that a scorer (mean log-probability, or a reward model) prefers: `subsets.best_of_n`."""

    def __init__(self, scorer: str = LOGPROB) -> None:
        self.scorer = scorer
        self.name = f"best-of-n:{scorer}"

    def accuracy(self, problems: Sequence[Sequence[Vote]], width: int) -> Floats:
        """See `Strategy.accuracy`."""
        return np.array(
            [
                subsets.best_of_n([vote.score for vote in votes], [vote.correct for vote in votes], width)
                for votes in problems
            ]
        )


_FACTORIES: dict[str, type[Strategy]] = {
    "majority": Majority,
    "pass@k": PassAtK,
    "pass@all": PassAtAll,
    "mean@k": MeanAtK,
    "best-of-n": BestOfN,
}
_SHORT = {"pass": "pass@k", "mean": "mean@k"}  # task files say "pass"


def get(name: str) -> Strategy:
    """A strategy by its name; ``best-of-n:SCORER`` names the scorer too, ``best-of-n`` alone is mean log-probability.

    Raises:
        ConfigError: There is no such strategy.
    """
    kind, colon, scorer = name.strip().partition(":")
    kind = _SHORT.get(kind.lower(), kind.lower())
    if kind == "best-of-n" and colon and scorer:
        return BestOfN(scorer)
    if kind == Likelihood.name and not colon:  # of tasks; nobody chooses it
        return Likelihood()
    if kind not in _FACTORIES or colon:
        raise ConfigError(f"unknown strategy {name!r}: choose one of {', '.join(_FACTORIES)}")
    return _FACTORIES[kind]()
