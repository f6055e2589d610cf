"""From a budget to the points of a run: what each would cost, and which of them fit."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.planning.budget import Budget as Budget
    from hyperscale.planning.costs import Costs as Costs
    from hyperscale.planning.costs import TaskShape as TaskShape
    from hyperscale.planning.grid import Grid as Grid
    from hyperscale.planning.planner import Plan as Plan
    from hyperscale.planning.planner import PlannedPoint as PlannedPoint
    from hyperscale.planning.planner import make_plan as make_plan
    from hyperscale.planning.prediction import Predictor as Predictor

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "budget": ["Budget"],
        "costs": ["Costs", "TaskShape"],
        "grid": ["Grid"],
        "planner": ["Plan", "PlannedPoint", "make_plan"],
        "prediction": ["Predictor"],
    },
)
