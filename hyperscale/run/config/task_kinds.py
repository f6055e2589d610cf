"""Tells which tasks of a run are scored by likelihood."""

from collections.abc import Iterable

from hyperscale import tasks
from hyperscale.errors import TaskError


def likelihood_tasks(names: Iterable[str]) -> list[str]:
    """Those of some tasks that are scored by likelihood; nothing is generated for them."""
    return [name for name in names if _is_likelihood(name)]


def find_likelihood_task(names: Iterable[str]) -> str | None:
    """The first of them; None if there is none."""
    return next((name for name in names if _is_likelihood(name)), None)


def _is_likelihood(name: str) -> bool:
    try:
        return tasks.load(name).is_likelihood
    except TaskError:  # which whoever loads the task says with its place
        return False
