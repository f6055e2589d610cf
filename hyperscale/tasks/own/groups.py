"""Groups of tasks in lm-eval's form, for which lm-eval gives a mean: which tasks they have, and how these weigh.

A group is run as its tasks. What it says of their mean is kept here, by name, for the runs that have all of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperscale.errors import TaskError


@dataclass(frozen=True)
class TaskGroup:
    """A group with a mean.

    Attributes:
        name: As the run's tasks are named: ``lm_eval:mmlu``.
        tasks: Its tasks, those of groups within it included.
        weights: Metric to whether tasks weigh by their numbers of problems (``weight_by_size``); else all weigh alike.
    """

    name: str
    tasks: tuple[str, ...]
    weights: Mapping[str, bool]


_GROUPS: dict[str, TaskGroup] = {}  # that tasks of this process were named by


def make_known(name: str, tasks: Iterable[str], values: Mapping[str, Any], place: str) -> None:
    """Keep what a group says of its tasks' mean; nothing if it says nothing.

    Args:
        name: The group's.
        tasks: Its tasks.
        values: The keys of its file.
        place: Where they stand, for messages.

    Raises:
        TaskError: ``aggregate_metric_list`` is no list of metrics, or asks for something else than a mean.
    """
    entries = values.get("aggregate_metric_list")
    if entries is None:
        return
    weights: dict[str, bool] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        known = entry if isinstance(entry, dict) else {}
        metric, weight = known.get("metric"), known.get("weight_by_size", True)
        if not isinstance(metric, str) or not isinstance(weight, bool) or known.get("aggregation", "mean") != "mean":
            raise TaskError(
                f"{place}: aggregate_metric_list must hold a metric each, as in `- metric: acc`, with weight_by_size "
                "true or false and no aggregation but mean"
            )
        weights.setdefault(metric, weight)
    _GROUPS[name] = TaskGroup(name, tuple(tasks), weights)


def find_groups(metric_of_task: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The groups that a run has all tasks of, for its ``run.json``: the tasks, and whether they weigh by size.

    As in lm-eval, only metrics that the group names have a mean.

    Args:
        metric_of_task: The run's tasks, each with the metric that counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for group in _GROUPS.values():
        metrics = {metric_of_task.get(task, "") for task in group.tasks}
        if len(metrics) == 1 and (metric := metrics.pop()) in group.weights:
            found[group.name] = {"tasks": list(group.tasks), "weight_by_size": group.weights[metric]}
    return found
