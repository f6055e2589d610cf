"""Fills in the defaults of a configuration that need no weights."""

from hyperscale import models
from hyperscale.errors import ConfigError
from hyperscale.planning import grid as grids
from hyperscale.planning.budget import Budget
from hyperscale.planning.grid import Grid
from hyperscale.run.config import compatibility, method_params
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.datasets import data_by_task


def resolve(config: RunConfig) -> RunConfig:
    """Fill in every default that needs no weights: tasks, CRs, grid, budget, sampling.

    Raises:
        ConfigError: The model has no default tasks and none were named, or parameters belong to no method of the run.
        ModelError: The model is unknown.
        BudgetError: The grid is unknown, or the budget cannot be read.
    """
    model = models.find(config.model)
    tasks = config.tasks or model.tasks
    if not tasks:
        raise ConfigError(f"{config.model} has no default tasks: name some with --task (see `hyperscale tasks`)")
    params = method_params.settle(config)
    if unused := sorted(set(config.task_params) - set(tasks)):
        raise ConfigError(f"task_params.{unused[0]}: {unused[0]!r} is no task of this run ({', '.join(tasks)})")
    compatibility.check_strategy(config)
    compatibility.check_engine(config)
    named = config.budget in grids.names()
    grid = Grid.load(config.grid or (config.budget if named else model.grid))
    budget = Grid.load(config.budget).budget if named else config.budget
    parsed = Budget.parse(budget, config.axis)
    return config.model_copy(
        update={
            "tasks": tasks,
            "params": params,
            "pin_prompt": None,
            "data": data_by_task(config.data, tasks),
            "lengths": tuple(sorted(config.lengths)),
            "budget": budget,
            "axis": parsed.axis,
            "grid": grid.name,
            "crs": config.crs or _offered(model, config.methods) or grid.crs,
            "temperature": model.temperature if config.temperature is None else config.temperature,
            "top_p": model.top_p if config.top_p is None else config.top_p,
            "batch_size": config.batch_size or model.batch_size,
        }
    )


def _offered(model: models.Model, methods: tuple[str, ...]) -> tuple[float, ...]:
    """Ratios at which the model has all the retrofits that are asked for; those of DMS if none is."""
    asked = [tuple(model.retrofits[name]) for name in methods if name in model.retrofits] or [tuple(model.dms)]
    return tuple(cr for cr in asked[0] if all(cr in each for each in asked))
