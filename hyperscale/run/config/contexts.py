"""Makes a task of its own of each context task at each length of its prompts."""

from collections.abc import Mapping
from typing import Any, TypeVar

from hyperscale import tasks
from hyperscale.errors import ConfigError, TaskError
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.task import CONTEXT_MARK, without_context

T = TypeVar("T")


def expand_contexts(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The configuration with its tasks by their full names, ``niah_single@4096``, and what was said of each.

    Args:
        config: As the user gave it.
        names: Its tasks, or the model's.

    Raises:
        ConfigError: It names lengths of prompts and no task that has them.
        TaskError: One of its tasks is unknown.
    """
    full_names = {name: _full_names(name, config.context) for name in names}
    own = [name for name in names if CONTEXT_MARK in name]
    if config.context and own and all(CONTEXT_MARK in name or _context_of(name) is None for name in names):
        raise ConfigError(f"--context is for tasks that do not say it themselves, as {own[0]} does: leave one out")
    if config.context and all(CONTEXT_MARK not in name for group in full_names.values() for name in group):
        for name in names:
            tasks.load(name)  # raises TaskError: a name that is misspelt is what to tell of
        known = [name for name in tasks.available() if tasks.load(name).context is not None]
        raise ConfigError(
            f"--context is for tasks that fill their prompts up ({', '.join(known)}), and {', '.join(names)} "
            f"{'are' if len(names) > 1 else 'is'} none: leave it out, or name one with --task"
        )
    every = tuple(dict.fromkeys(full for group in full_names.values() for full in group))
    data, params = _by_full_name(config.data, every), _by_full_name(config.task_params, every)
    if "" in config.data and len(names) == 1:
        data = {full: [config.data[""]] for full in every}
    expanded: dict[str, Any] = {
        "data": {full: values[-1] for full, values in data.items()},
        "task_params": {
            full: {name: value for group in values for name, value in group.items()} for full, values in params.items()
        },
    }
    return config.model_copy(update={"tasks": every, **expanded})


def all_contexts(names: tuple[str, ...]) -> bool:
    """Whether all tasks of these full names fill their prompts up."""
    return all(CONTEXT_MARK in name for name in names)


def all_greedy(names: tuple[str, ...]) -> bool:
    """Whether all tasks of these full names ask for greedy chains, as context tasks do."""
    return all(CONTEXT_MARK in name or _is_greedy(name) for name in names)


def _is_greedy(name: str) -> bool:
    try:
        return tasks.load(name).greedy
    except TaskError:  # which whoever loads the task says with its place
        return False


def _by_full_name(said: Mapping[str, T], tasks: tuple[str, ...]) -> dict[str, list[T]]:
    """What is said of each task: of niah_single, which holds at all its lengths, then of the one length alone.

    What is said of a task that the run does not have stays, for whoever refuses it.
    """
    by_name = {_normalise(name): value for name, value in said.items()}
    used, result = set(), {}
    for task in tasks:
        keys = [key for key in dict.fromkeys((without_context(task), task)) if key in by_name]
        used.update(keys)
        if keys:
            result[task] = [by_name[key] for key in keys]
    return result | {name: [value] for name, value in by_name.items() if name not in used}


def _normalise(name: str) -> str:
    """The one name of a length of a task: niah_single@512 for niah_single@0512; any other name as it is."""
    task, mark, tokens = name.partition(CONTEXT_MARK)
    return f"{task}{mark}{int(tokens)}" if tokens.isdecimal() else name


def _context_of(name: str) -> int | None:
    """Tokens of a task's prompts, if it fills them up."""
    try:
        return tasks.load(name).context
    except TaskError:  # which whoever loads the task says with its place
        return None


def _full_names(name: str, contexts: tuple[int, ...]) -> tuple[str, ...]:
    default = _context_of(name)
    if default is None or CONTEXT_MARK in name:
        return (_normalise(name),)
    return tuple(f"{name}{CONTEXT_MARK}{tokens}" for tokens in contexts or (default,))
