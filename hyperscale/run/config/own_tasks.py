"""Makes the user's own tasks known, by the files and folders that a configuration names."""

from hyperscale.errors import ConfigError
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.own import sources


def with_own_tasks(config: RunConfig) -> RunConfig:
    """The configuration with its tasks by their names, where it has files; what is said of a file is said of its task.

    Raises:
        TaskError: A file or folder cannot be read, or names no task.
        ConfigError: Two entries are one task.
    """
    for folder in config.include:
        sources.declare_folder(folder)
    names = {task: sources.declare(task) if sources.is_path(task) else task for task in config.tasks}
    if len(set(names.values())) < len(names):
        name = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise ConfigError(f"--task: two of {', '.join(config.tasks)} are the task {name}: leave one out, or rename it")

    def by_name(said: dict[str, object]) -> dict[str, object]:
        return {names.get(task, task): value for task, value in said.items()}

    return config.model_copy(
        update={
            "tasks": tuple(names.values()),
            "data": by_name(dict(config.data)),
            "task_params": by_name(dict(config.task_params)),
        }
    )
