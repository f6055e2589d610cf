"""hyperscale: how accurate can a reasoning model be at a given budget of KV-cache reads or memory?

From Python (docs/python.md): ``hyperscale.run(...)`` generates and scores, ``hyperscale.load(folder)`` reads results;
both give a `Results` with points, chains, frontiers and margins as pandas frames. ``hyperscale.plan(...)`` says what a
run would do, ``hyperscale.loglik(...)`` how well texts are predicted under compression. What a user can mend is raised
as a `HyperscaleError`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.errors import HyperscaleError as HyperscaleError
    from hyperscale.frames import Results as Results
    from hyperscale.frames import load as load
    from hyperscale.likelihood.from_python import loglik as loglik
    from hyperscale.run.config.schema import RunConfig as RunConfig
    from hyperscale.run.from_python import plan as plan
    from hyperscale.run.from_python import run as run

__version__ = "0.1.0"

# `run` is a package too: what is called at run time is that package, which passes the call on (`hyperscale.run`).
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["errors", "run"],
    submod_attrs={
        "errors": ["HyperscaleError"],
        "frames": ["Results", "load"],
        "likelihood.from_python": ["loglik"],
        "run.config.schema": ["RunConfig"],
        "run.from_python": ["plan"],
    },
)
