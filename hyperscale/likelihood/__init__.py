"""How well a model predicts given texts under compression, against its full cache: nats a token, and KL by position.

In the order of reading: `settings` (what can be set), `documents` (texts cut to one length), `full_cache` (what is
predicted without compression), `scoring` (a method's predictions, token by token), `measurement` (all methods in turn),
`stored_scores` (what is kept of a measurement that was stopped), `summary` (means and intervals over documents),
`frames` (all numbers), `files`, `markdown` and `picture`; `from_python` is ``hyperscale.loglik(...)``.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.likelihood.frames import Likelihood as Likelihood
    from hyperscale.likelihood.from_python import loglik as loglik
    from hyperscale.likelihood.measurement import measure as measure
    from hyperscale.likelihood.settings import LikelihoodSettings as LikelihoodSettings

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "frames": ["Likelihood"],
        "from_python": ["loglik"],
        "measurement": ["measure"],
        "settings": ["LikelihoodSettings"],
    },
)
