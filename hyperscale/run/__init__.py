"""A run, from its settings to its points: config → prepare → pilot → execute; or a dry run, which stops at the plan."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
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
