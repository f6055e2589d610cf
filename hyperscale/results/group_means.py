"""Makes the means of groups of tasks (MMLU) of the points of their tasks, as lm-eval aggregates them.

lm-eval's ``Group.aggregate`` weighs tasks by their numbers of problems, or all alike, as the group's file says
(``weight_by_size``); so do accuracies and costs here. Standard errors are lm-eval's: pooled over problems where tasks
weigh by size, else those of independent tasks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperscale.methods.arm import point_label
from hyperscale.results.intervals import MIN_PROBLEMS, NO_INTERVAL, Z, design_effect, score_interval
from hyperscale.results.points import COLUMNS, COSTS, MeasuredPoint, SeriesKey
from hyperscale.scoring.voting.strategies import Likelihood


@dataclass(frozen=True)
class GroupMean:
    """The mean of one point over the tasks of a group.

    Attributes:
        series: Run, model, method, engine and compression; the group in the place of a task.
        W: Chains per problem.
        L: Most new tokens per chain; of tasks that are scored by likelihood the longest.
        tasks: The point of each task.
        weights: (tasks,), of sum 1.
        weight_by_size: Whether they are the tasks' shares of the problems.
    """

    series: SeriesKey
    W: int
    L: int
    tasks: Sequence[MeasuredPoint]
    weights: NDArray[np.float64]
    weight_by_size: bool

    @property
    def label(self) -> str:
        """The point written W-L-CR, as `MeasuredPoint.label`."""
        return point_label(self.W, self.L, self.series.CR, self.series.kv_budget)

    @property
    def problems(self) -> int:
        """Number of problems of all tasks."""
        return sum(len(point.problems) for point in self.tasks)

    def row(self) -> dict[str, Any]:
        """A row of ``points.csv``, as `MeasuredPoint.row`."""
        rows = [point.row() for point in self.tasks]
        low, high = self._interval()
        own = {
            **self.series._asdict(),
            "CR": np.nan if self.series.kv_budget else self.series.CR,
            "W": self.W,
            "L": self.L,
            "realised_cr": self._ratio(rows, "realised_cr", "kv_reads"),
            "n_problems": self.problems,
            "n_seeds": max(point.n_seeds for point in self.tasks),
            "accuracy_se": 100 * self._standard_error(),
            "accuracy_low": 100 * low,
            "accuracy_high": 100 * high,
            "vote": _common([point.vote for point in self.tasks], "mixed"),
            "context": _common([row["context"] for row in rows], 0),
            "given_up": sum(point.given_up for point in self.tasks),
            "n_tasks": len(rows),
        }
        means = ("accuracy", *COSTS, "truncated", "no_answer", "prefill_kv", "prefill_reads", "retained")
        row = own | {name: self._mean([row[name] for row in rows]) for name in means}
        return {column: row[column] for column in COLUMNS}

    def _mean(self, values: Iterable[float]) -> float:
        return float(np.dot(self.weights, np.array(list(values), dtype=np.float64)))

    def _ratio(self, rows: Sequence[Mapping[str, Any]], ratio: str, of: str) -> float:
        """The mean of a ratio whose denominator is a column: a ratio of means, of the tasks that have it."""
        known = [(row[ratio], row[of], w) for row, w in zip(rows, self.weights, strict=True) if row[of]]
        total = sum(w * base for _, base, w in known)
        return sum(w * base * value for value, base, w in known) / total if total else math.nan

    def _standard_error(self) -> float:
        """In [0, 1]; NaN where a task has a single problem."""
        sizes = [len(point.problems) for point in self.tasks]
        if min(sizes) < 2:
            return math.nan
        variances = [float(point.accuracy.var(ddof=1)) for point in self.tasks]
        if self.weight_by_size:  # lm-eval's pooled_sample_stderr
            pooled = sum((n - 1) * v for n, v in zip(sizes, variances, strict=True)) / (sum(sizes) - len(sizes))
            return math.sqrt(pooled / sum(sizes))
        return math.sqrt(sum(v / n for n, v in zip(sizes, variances, strict=True))) / len(sizes)

    def _interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval: Wilson's, of as many verdicts as a mean with these weights is worth."""
        if self.problems < MIN_PROBLEMS:
            return NO_INTERVAL
        parts = zip(self.weights, self.tasks, strict=True)
        inverse = sum(w**2 * design_effect(point.accuracy, Z) / len(point.problems) for w, point in parts)
        return score_interval(self._mean(point.accuracy.mean() for point in self.tasks), 1 / float(inverse))


def group_means(points: Iterable[MeasuredPoint], groups: Mapping[str, Mapping[str, Any]]) -> list[GroupMean]:
    """The means of a run's groups, at every point that all of their tasks have.

    Args:
        points: The run's points.
        groups: Name to ``tasks`` and ``weight_by_size``, as ``run.json`` has them under ``task_groups``.
    """
    points, means = list(points), []
    for name, group in groups.items():
        places: dict[tuple[SeriesKey, int, int], dict[str, MeasuredPoint]] = {}
        for point in points:
            if point.series.task in group["tasks"]:
                # Problems of likelihood have an L of their own task's: the longest of its options.
                L = 0 if point.vote == Likelihood.name else point.L
                place = point.series._replace(task=name), point.W, L
                places.setdefault(place, {})[point.series.task] = point
        for (series, W, _), of_task in places.items():
            if len(of_task) < len(group["tasks"]):
                continue
            tasks = [of_task[task] for task in group["tasks"]]
            sizes = np.array([len(point.problems) if group["weight_by_size"] else 1.0 for point in tasks])
            longest = max(point.L for point in tasks)
            means.append(GroupMean(series, W, longest, tasks, sizes / sizes.sum(), bool(group["weight_by_size"])))
    return means


def _common(values: Sequence[Any], otherwise: Any) -> Any:
    """What all values are, if they are one."""
    return values[0] if len(set(values)) == 1 else otherwise
