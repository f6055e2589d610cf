"""Makes the user's own tasks known, by the files and folders that a configuration names."""

from hyperscale import tasks
from hyperscale.errors import ConfigError
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.own import lm_eval_names, sources
from hyperscale.tasks.own.lm_eval_names import PREFIX, is_lm_eval


def with_own_tasks(config: RunConfig) -> RunConfig:
    """The configuration with its tasks by their names, where it has files; what is said of a file is said of its task.

    Raises:
        TaskError: A file or folder cannot be read, or names no task.
        ConfigError: Two entries are one task.
    """
    for folder in config.include:
        sources.declare_folder(folder)
    names = {task: _names_of(task) for task in _with_prefixes(config.tasks)}
    every = [name for group in names.values() for name in group]
    if len(set(every)) < len(every):
        name = next(name for name in every if every.count(name) > 1)
        raise ConfigError(f"--task: two of {', '.join(config.tasks)} are the task {name}: leave one out, or rename it")

    def by_name(said: dict[str, object]) -> dict[str, object]:
        return {name: value for task, value in said.items() for name in names.get(task, (task,))}

    data = dict(config.data)
    if "" in data and len(names) == 1:  # of a group: all its tasks
        (only,) = names
        data = {only if task == "" else task: path for task, path in data.items()}
    return config.model_copy(
        update={
            "tasks": tuple(every),
            "data": by_name(dict(data)),
            "task_params": by_name(dict(config.task_params)),
        }
    )


def _with_prefixes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names with lm-eval's prefix, which is said once in ``lm_eval:gsm8k,hellaswag``."""
    full: list[str] = []
    for name in names:
        follows = bool(full) and is_lm_eval(full[-1])
        is_known = tasks.without_context(name) in tasks.available() or name in sources.declared()
        is_other = is_lm_eval(name) or is_known or sources.is_group(name) or sources.is_path(name)
        full.append(f"{PREFIX}{name}" if follows and not is_other else name)
    return tuple(full)


def _names_of(task: str) -> tuple[str, ...]:
    """The name of a task; those of all tasks of a group, lm-eval's or a folder's."""
    if is_lm_eval(task):
        return tuple(lm_eval_names.declare(task))
    if sources.is_group(task):
        return tuple(sources.expand_group(task))
    return (sources.declare(task) if sources.is_path(task) else task,)
