"""What the formats have in common: a run's points and chains by arm and task, and when the run was."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from hyperscale import tasks
from hyperscale.methods.arm import compression_label
from hyperscale.results.folder import Run
from hyperscale.results.manifest import RUN_FILE
from hyperscale.results.points import MeasuredPoint, SeriesKey
from hyperscale.results.samples import Sample
from hyperscale.tasks.task import Task


@dataclass(frozen=True)
class Series:
    """An arm on a task.

    Attributes:
        run: The run.
        points: Its points, by L and W.
        chains: Its chains, by problem, seed, L and chain.
    """

    run: Run
    points: Sequence[MeasuredPoint]
    chains: Sequence[Sample]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.chains[0].method

    @property
    def arm(self) -> str:
        """The method at its compression, without blanks: ``dms-8x``."""
        return name_arm(self.chains[0])

    @property
    def model(self) -> str:
        """The model's name."""
        return self.chains[0].model

    @cached_property
    def task(self) -> Task:
        """The task."""
        return tasks.load(self.chains[0].task)

    @property
    def compression(self) -> dict[str, Any]:
        """The arm as arguments: method, cr or budget in tokens, and what else was set."""
        first = self.chains[0]
        size = {"kv_budget": first.kv_budget} if first.kv_budget else {"cr": first.CR}
        others = {name: value for name, value in first.params.items() if name not in ("cr", "budget")}
        return {"method": first.method, **size, **others, "engine": first.engine, "kv_dtype": first.kv_dtype}

    @property
    def problems(self) -> list[str]:
        """Ids of the problems that have a chain, in order."""
        return list(dict.fromkeys(chain.problem for chain in self.chains))

    def generation(self) -> dict[str, Any]:
        """How chains were drawn, by lm-eval's names."""
        config = self.run.info["config"]
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        drawn = {name: config[name] for name in names if config.get(name) is not None}
        return {"until": [], "do_sample": config.get("temperature") != 0} | drawn | {"max_gen_toks": self.longest}

    @property
    def longest(self) -> int:
        """The largest L that a chain was allowed."""
        return max(chain.L for chain in self.chains)


def name_arm(arm: Sample | SeriesKey) -> str:
    """A method at its compression, without blanks: ``dms-8x``."""
    label = compression_label(arm.CR, arm.kv_budget)
    return f"{arm.method}-{label}{'' if arm.kv_budget else 'x'}"


def collect_series(run: Run) -> Iterator[Series]:
    """A run's arms on its tasks, in the order of their first chains.

    Raises:
        TaskError: A task is unknown, so that its votes cannot be counted.
    """
    points: dict[tuple[Any, ...], list[MeasuredPoint]] = {}
    for point in run.points():
        key = point.series
        identity = (key.model, key.method, key.CR, key.kv_budget, key.engine, key.task)
        points.setdefault(identity, []).append(point)
    chains: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in run.samples:
        identity = (sample.model, sample.method, sample.CR, sample.kv_budget, sample.engine, sample.task)
        chains.setdefault(identity, []).append(sample)
    for identity, samples in chains.items():
        yield Series(
            run,
            sorted(points.get(identity, []), key=lambda point: (point.L, point.W)),
            sorted(samples, key=lambda sample: (sample.problem, sample.seed, sample.L, sample.chain)),
        )


def date_of(run: Run) -> datetime:
    """When a run began, in UTC; older folders do not say, and have the time of their description."""
    if date := run.info.get("date"):
        return datetime.fromisoformat(date).astimezone(UTC)
    return datetime.fromtimestamp(int((run.folder / RUN_FILE).stat().st_mtime), UTC)
