"""Voting: one verdict a problem from the answers and verdicts of its W chains.

A run generates n chains a problem; what W of them would give is the expectation over subsets of W of those n. So one
run gives every smaller W, and another strategy needs no new generation.

- `strategies`: what a vote is (`Vote`), what a strategy is (`Strategy`), and the registry: majority, pass@k, pass@all,
  mean@k, best-of-n.
- `candidates`: what is voted on: equal answers, in whatever form they are written, are one candidate.
- `subsets`: the numbers behind them, expectations over subsets of W of n chains.
- `reward_models`: scores for best-of-n from a reward model.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.scoring.voting.reward_models import Scorer as Scorer
    from hyperscale.scoring.voting.strategies import Strategy as Strategy
    from hyperscale.scoring.voting.strategies import Vote as Vote
    from hyperscale.scoring.voting.strategies import get as get

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reward_models": ["Scorer"],
        "strategies": ["Strategy", "Vote", "get"],
    },
)
