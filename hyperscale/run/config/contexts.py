"""Makes a task of its own of each context task at each length of its prompts."""

from hyperscale import tasks
from hyperscale.errors import ConfigError, TaskError
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.task import CONTEXT_MARK


def expand_contexts(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The configuration with its tasks by their full names, ``niah_single@4096``, and what was said of each.

    Args:
        config: As the user gave it.
        names: Its tasks, or the model's.

    Raises:
        ConfigError: It names lengths of prompts and no task that has them.
    """
    full_names = {name: _full_names(name, config.context) for name in names}
    if config.context and all(CONTEXT_MARK not in name for group in full_names.values() for name in group):
        known = [name for name in tasks.available() if tasks.load(name).context is not None]
        raise ConfigError(
            f"--context is for tasks that fill their prompts up ({', '.join(known)}), and {', '.join(names)} "
            f"{'are' if len(names) > 1 else 'is'} none: leave it out, or name one with --task"
        )
    # What is said of niah_single holds at all its lengths.
    expanded = {
        field: {full: value for name, value in values.items() for full in full_names.get(name, (name,))}
        for field, values in (("data", config.data), ("task_params", config.task_params))
    }
    every = tuple(dict.fromkeys(full for group in full_names.values() for full in group))
    if "" in config.data and len(names) == 1:
        expanded["data"] = dict.fromkeys(every, config.data[""])
    return config.model_copy(update={"tasks": every, **expanded})


def all_contexts(names: tuple[str, ...]) -> bool:
    """Whether all tasks of these full names fill their prompts up."""
    return all(CONTEXT_MARK in name for name in names)


def _full_names(name: str, contexts: tuple[int, ...]) -> tuple[str, ...]:
    try:
        default = tasks.load(name).context
    except TaskError:  # which whoever loads the task says with its place
        default = None
    if default is None or CONTEXT_MARK in name:
        return (name,)
    return tuple(f"{name}{CONTEXT_MARK}{tokens}" for tokens in contexts or (default,))
