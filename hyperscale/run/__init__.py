"""A run, from its settings to its points: config → prepare → pilot → execute; or a dry run, which stops at the plan.

The package can be called: ``hyperscale.run(model="mini")`` is `from_python.run`, which starts a run from Python.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.frames import Results
    from hyperscale.run.config.schema import RunConfig
    from hyperscale.run.dry_run import DryRun as DryRun
    from hyperscale.run.dry_run import plan_dry_run as plan_dry_run
    from hyperscale.run.engines.cache import EngineCache as EngineCache
    from hyperscale.run.execute import execute_run as execute_run
    from hyperscale.run.observer import RunObserver as RunObserver
    from hyperscale.run.planned_run import PlannedRun as PlannedRun
    from hyperscale.run.prepare import PreparedRun as PreparedRun
    from hyperscale.run.prepare import prepare_run as prepare_run

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dry_run": ["DryRun", "plan_dry_run"],
        "engines.cache": ["EngineCache"],
        "execute": ["execute_run"],
        "observer": ["RunObserver"],
        "planned_run": ["PlannedRun"],
        "prepare": ["PreparedRun", "prepare_run"],
    },
)


class _CallablePackage(ModuleType):
    """This package: the name ``hyperscale.run`` can be a package or a function, so the package takes the call."""

    def __call__(
        self,
        config: "RunConfig | Path | str | None" = None,
        *,
        out: "Path | str | None" = None,
        plan: "Path | str | None" = None,
        observer: "RunObserver | None" = None,
        progress: bool = True,
        **settings: Any,
    ) -> "Results":
        """See `hyperscale.run.from_python.run`."""
        from hyperscale.run.from_python import run

        return run(config, out=out, plan=plan, observer=observer, progress=progress, **settings)


sys.modules[__name__].__class__ = _CallablePackage
