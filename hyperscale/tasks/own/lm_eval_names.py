"""Finds the tasks that lm-eval ships by their names: ``lm_eval:gsm8k``, and the tasks of a group, ``lm_eval:mmlu``."""

from functools import cache
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.lm_eval_match import INSTALL
from hyperscale.tasks.own import groups, sources
from hyperscale.utils.validation import suggestion

PREFIX = "lm_eval:"


def is_lm_eval(name: str) -> bool:
    """Whether a name is that of a task of lm-eval's."""
    return name.startswith(PREFIX)


def declare(name: str) -> list[str]:
    """Make a task of lm-eval's known by its name, ``lm_eval:NAME``; of a group or a tag all its tasks.

    Returns:
        The names of the tasks.

    Raises:
        TaskError: lm-eval is not installed, has no such task, or its task is a class of its own.
    """
    names = {f"{PREFIX}{task}": task for task in _tasks_of(name.removeprefix(PREFIX), ())}
    for full_name, task in names.items():
        sources.make_known(full_name, sources.read_source(_index()[task].yaml_path))
    return list(names)


def _tasks_of(name: str, within: tuple[str, ...]) -> list[str]:
    """A task, or the tasks of a group, in lm-eval's order."""
    index = _index()
    entry = index.get(name)
    if entry is None:
        raise TaskError(f"lm-eval has no task {name!r}{suggestion(name, index)}; `lm_eval ls tasks` lists them")
    kind = entry.kind.name
    if kind == "PY_TASK":
        raise TaskError(
            f"{PREFIX}{name} is a class of its own in lm-eval: run it under lm-eval (python -m hyperscale.lm_eval)"
        )
    if kind == "TASK":
        return [name]
    parts = sorted(entry.tags) if kind == "TAG" else (entry.cfg or {}).get("task")
    parts = [parts] if isinstance(parts, str) else parts or []
    if name in within or not all(isinstance(part, str) for part in parts):
        raise TaskError(
            f"{PREFIX}{name} is a group of lm-eval's that changes its tasks: name the tasks, or run it under lm-eval "
            "(python -m hyperscale.lm_eval)"
        )
    found = [task for part in parts for task in _tasks_of(part, (*within, name))]
    found = list(dict.fromkeys(found))
    if kind == "GROUP":
        groups.make_known(f"{PREFIX}{name}", (f"{PREFIX}{task}" for task in found), entry.cfg or {}, f"{PREFIX}{name}")
    return found


@cache
def _index() -> dict[str, Any]:
    """All that lm-eval has, by name. Its files are many: this takes seconds."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise TaskError(f"tasks of lm-eval's need lm-eval ({error.name} is missing): {INSTALL}") from None
    return dict(TaskManager().task_index)
