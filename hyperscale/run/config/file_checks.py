"""Checks names and budgets that a file gives, so that the message has file and line; options are checked later."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from hyperscale.errors import HyperscaleError, MethodError
from hyperscale.utils.validation import Location, suggestion

if TYPE_CHECKING:
    from hyperscale.run.config.schema import RunConfig


def check_names(config: "RunConfig", place_of: Callable[[Location], str | None]) -> None:
    """Refuse unknown tasks, methods, grids and strategies, and budgets that cannot be read.

    Args:
        config: The configuration.
        place_of: File and line of a value by its field and the places inside; None for what an option says.

    Raises:
        HyperscaleError: One of them, of its own type.
    """
    for location, check in _checks(config):
        place = place_of(location)
        if place is None:
            continue
        try:
            check()
        except HyperscaleError as error:
            raise type(error)(f"{place}: {error}") from None


def _checks(config: "RunConfig") -> Iterator[tuple[Location, Callable[[], Any]]]:
    """Each value that has a meaning beyond its type, with what refuses it."""
    from hyperscale import methods, models, tasks
    from hyperscale.planning import grid
    from hyperscale.planning.budget import Budget
    from hyperscale.scoring.voting import strategies
    from hyperscale.tasks.own import lm_eval_names, sources
    from hyperscale.tasks.own.lm_eval_names import is_lm_eval

    yield ("model",), partial(models.find, config.model)
    for i, folder in enumerate(config.include):
        yield ("include", i), partial(sources.declare_folder, folder)
    for i, name in enumerate(config.tasks):
        yield ("tasks", i), partial(lm_eval_names.declare if is_lm_eval(name) else tasks.load, name)
    if config.grid is not None:
        yield ("grid",), partial(grid.Grid.load, config.grid)
    if config.axis is not None:
        yield ("axis",), partial(Budget.parse, "8x", config.axis)
    if config.budget not in grid.names():
        yield ("budget",), partial(Budget.parse, config.budget)
    if config.vote is not None:
        yield ("vote",), partial(strategies.get, config.vote)
    for name, values in config.task_params.items():
        for parameter, value in values.items():
            yield ("task_params", name, parameter), partial(_choose, name, parameter, value)
    for i, name in enumerate(config.methods):
        yield ("methods", i), partial(methods.parameters, name)
    for name, values in config.params.items():
        for parameter in values:
            yield ("params", name, parameter), partial(_check_parameter, name, parameter)


def _choose(task: str, parameter: str, value: Any) -> None:
    from hyperscale import tasks

    tasks.load(task).with_parameters(**{parameter: value})


def _check_parameter(method: str, parameter: str) -> None:
    from hyperscale import methods

    names = methods.parameters(method)
    if names and parameter not in names:
        raise MethodError(f"method {method} has no parameter {parameter!r}{suggestion(parameter, names)}")
