"""Makes points of finished chains: accuracy and cost of every W-L-CR that the chains allow.

A chain generated up to some L also gives every shorter L, by cutting it there, for methods whose rule does not depend
on the maximum length; several chains give every smaller W, in expectation over subsets. So all of a method's points
come from one pass of generation.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hyperscale import tasks
from hyperscale.errors import ResultsError, TaskError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.arm import point_label
from hyperscale.results.intervals import AccuracyInterval, wilson_interval
from hyperscale.results.samples import Sample
from hyperscale.results.truncation import TruncatedChain, is_eligible, truncate
from hyperscale.scoring.voting import strategies
from hyperscale.scoring.voting.candidates import Candidates
from hyperscale.scoring.voting.strategies import Strategy, Vote
from hyperscale.tasks.own import sources

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

COSTS = ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds", "read_bytes")
COLUMNS = (
    *("run", "model", "method", "engine", "task", "W", "L", "CR", "realised_cr", "n_problems", "n_seeds"),
    *("accuracy", "accuracy_se", "vote", "kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds"),
    *("truncated", "no_answer", "kv_budget", "accuracy_low", "accuracy_high", "context", "kv_dtype", "read_bytes"),
    *("given_up", "prefill_kv", "prefill_reads", "retained", "n_tasks"),
)


class SeriesKey(NamedTuple):
    """What is held fixed while W and L vary: an arm on a task, as a run measured it.

    ``kv_dtype`` is what a quantised cache keeps keys and values in; "auto" for the model's own type.
    """

    run: str
    model: str
    method: str
    engine: str
    task: str
    CR: float
    kv_budget: int = 0
    kv_dtype: str = AUTO


class TableRow(Protocol):
    """What makes a row of ``points.csv``."""

    def row(self) -> dict[str, Any]:
        """The values of `COLUMNS`."""


@dataclass(frozen=True)
class MeasuredPoint:
    """One W-L-CR point, with its accuracy and costs on every problem.

    Attributes:
        series: Run, model, method, engine, task and compression (see `Arm`).
        W: Chains per problem.
        L: Most new tokens per chain.
        vote: Name of the strategy, see `hyperscale.scoring.voting.strategies`.
        problems: Problems with at least W chains at this L, n of them.
        accuracy: (n,), expected verdict over subsets of W chains, mean over seeds, in [0, 1].
        costs: Each of `COSTS`: (n,), W times the mean over the problem's chains, mean over seeds.
        realised_cr: Reads an uncompressed cache would have needed for the same chains / reads made.
        n_seeds: Number of seeds.
        truncated: Share of chains that L cut off before they gave an answer, mean over problems.
        no_answer: Share of chains that ended by themselves without an answer, mean over problems.
        given_up: Problems that are missing, as engines were lost with them.
        prefill_kv: Entries held right after prefill, W times the mean over a problem's chains, mean over problems; NaN
            where a sample does not say, as in older folders.
        prefill_reads: Entries that a prompt's queries attended to, once however many chains share the prompt, likewise.
        retained: Share of the prompts' entries that is left after prefill, in [0, 1]: a ratio of sums.
    """

    series: SeriesKey
    W: int
    L: int
    vote: str
    problems: tuple[str, ...]
    accuracy: Floats
    costs: dict[str, Floats]
    realised_cr: float
    n_seeds: int
    truncated: float
    no_answer: float
    given_up: int = 0
    prefill_kv: float = math.nan
    prefill_reads: float = math.nan
    retained: float = math.nan

    @property
    def label(self) -> str:
        """The point written W-L-CR; a budget in tokens takes the place of the CR."""
        return point_label(self.W, self.L, self.series.CR, self.series.kv_budget)

    @property
    def interval(self) -> AccuracyInterval:
        """The 95 % interval of the accuracy over problems; NaN where these are too few."""
        return wilson_interval(self.accuracy)

    def row(self) -> dict[str, Any]:
        """The point averaged over its problems: a row of ``points.csv``."""
        n = len(self.problems)
        # Without any spread, as at 0 % and 100 %, a standard error of 0 would say that the accuracy is known.
        se = self.accuracy.std(ddof=1) / np.sqrt(n) if n > 1 and np.ptp(self.accuracy) else np.nan
        low, high = self.interval
        row = {
            **self.series._asdict(),
            # A budget in tokens is no ratio: which one it comes to differs from prompt to prompt.
            "CR": np.nan if self.series.kv_budget else self.series.CR,
            "W": self.W,
            "L": self.L,
            "realised_cr": self.realised_cr,
            "n_problems": n,
            "n_seeds": self.n_seeds,
            "accuracy": 100 * float(self.accuracy.mean()),
            "accuracy_se": 100 * float(se),
            "vote": self.vote,
            **{axis: float(values.mean()) for axis, values in self.costs.items()},
            "truncated": 100 * self.truncated,
            "no_answer": 100 * self.no_answer,
            "accuracy_low": 100 * low,
            "accuracy_high": 100 * high,
            "context": tasks.context_of(self.series.task) or 0,
            "given_up": self.given_up,
            "prefill_kv": self.prefill_kv,
            "prefill_reads": self.prefill_reads,
            "retained": 100 * self.retained,
            "n_tasks": 1,
        }
        return {column: row[column] for column in COLUMNS}


def make_points(
    samples: Iterable[Sample],
    *,
    run: str = "",
    vote: str | None = None,
    widths: Collection[int] = (),
    strategy_of_task: Mapping[str, str] | None = None,
    given_up: Mapping[tuple[str, str], Collection[str]] | None = None,
) -> list[MeasuredPoint]:
    """Every point that the samples of a run allow.

    Accuracy is the expectation of the verdict over subsets of W chains of a problem, mean over seeds. Costs are per
    problem: W times the mean chain. ``seconds`` is the time chains spent in the batch, shared with the others in it; a
    cut chain counts in proportion to its tokens.

    Only problems with at least W chains at an L count for that point: after an interruption a point may rest on few
    (``n_problems``), and as quick chains finish first, these are not a random choice. An L at which some chain was not
    recorded makes no point, for the same reason.

    Args:
        samples: The run's chains.
        run: The run's name.
        vote: Name of the strategy chosen for the run; None for each task's own.
        widths: The values of W that the run was asked for; powers of two are always there.
        strategy_of_task: Task to the name of a strategy, for those that are not to have the run's.
        given_up: Problems that are missing for good, by arm (as `Arm` writes it) and task.

    Raises:
        ConfigError: There is no such strategy.
        ResultsError: A sample lacks the scores that the strategy needs.
        TaskError: A task is neither in ``strategy_of_task`` nor known.
    """
    groups: dict[SeriesKey, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(series_of(run, sample), []).append(sample)
    points = []
    for series, chains in groups.items():
        strategy, lengths = _task(series.task, strategy_of_task or {}, vote)
        if chains[0].options:  # no chains that vote, whatever the run's strategy is
            strategy, lengths = strategies.Likelihood(), ()
        missing = len((given_up or {}).get((str(chains[0].arm), series.task), ()))
        made = _points_of_series(series, chains, strategy, lengths, widths)
        points += [replace(point, given_up=missing) for point in made] if missing else made
    return points


def series_of(run: str, sample: Sample) -> SeriesKey:
    """The series of a run's chain."""
    arm = sample.model, sample.method, sample.engine, sample.task, sample.CR, sample.kv_budget
    return SeriesKey(run, *arm, _type_of_cache(sample))


def table(points: Iterable["TableRow"]) -> "pd.DataFrame":
    """Points and means of groups, one a row, with the columns of ``points.csv`` in their order.

    Accuracy, its standard error, which is clustered by problem, and the ends of its 95 % interval (`intervals`) are in
    percent; so are ``truncated`` and ``no_answer``, the shares of chains that L cut off before an answer, and that
    ended without one, and ``retained``, the share of the prompts that is left after prefill.
    """
    import pandas as pd

    return pd.DataFrame([point.row() for point in points], columns=list(COLUMNS))


class _Row(NamedTuple):
    """The chains of one problem and seed, in chain order."""

    problem: str
    seed: int
    chains: list[TruncatedChain]
    votes: list[Vote]


def _task(name: str, strategy_of_task: Mapping[str, str], vote: str | None) -> tuple[Strategy, tuple[int, ...]]:
    """A task's strategy, and its lengths; none where it need not be known, as the chains have cuts of their own."""
    if name in strategy_of_task:
        return strategies.get(strategy_of_task[name]), ()
    task = tasks.load(name)
    return strategies.get(vote or task.strategy), task.lengths


def candidates_of(task: str) -> Candidates:
    """What unites the equal answers of a task; of a task that is not known here, equal texts."""
    return _candidates_of(task, sources.find(task))


@lru_cache(maxsize=64)
def _candidates_of(task: str, _: sources.TaskSource | None) -> Candidates:
    """The same, as long as the task's file is the same."""
    try:
        return Candidates(tasks.load(task).new_grader())
    except TaskError:
        return Candidates(None)


def _points_of_series(
    series: SeriesKey, samples: Sequence[Sample], strategy: Strategy, lengths: Sequence[int], widths: Collection[int]
) -> list[MeasuredPoint]:
    max_length = max(sample.L for sample in samples)
    cut_lengths = {cut.L for sample in samples for cut in sample.cuts}
    points = []
    for L in sorted(cut_lengths | {length for length in lengths if length <= max_length}):
        pairs = [(sample, truncate(sample, L, strategy.scorer)) for sample in samples if is_eligible(sample, L)]
        if any(chain is None for _, chain in pairs):
            continue  # not recorded at this L: only the chains that ended earlier are known, the easy ones
        # Chains of a problem and seed vote together; their order is that of the chains, whatever finished first.
        # Keyed by chain, so that a chain generated for two different L counts once.
        groups: dict[tuple[str, int], dict[int, TruncatedChain]] = {}
        for sample, chain in pairs:
            if chain is not None:
                groups.setdefault((sample.problem, sample.seed), {})[sample.chain] = chain
        candidates = candidates_of(series.task) if strategy.compares_answers else Candidates(None)
        rows = []
        for key, group in groups.items():
            chains = [group[i] for i in sorted(group)]
            rows.append(_Row(*key, chains, candidates.unite([chain.vote for chain in chains])))
        means = np.array([np.mean([chain.costs for chain in row.chains], axis=0) for row in rows])
        max_chains = max((len(row.chains) for row in rows), default=0)
        points += [_point(series, W, L, strategy, rows, means) for W in strategy.widths(max_chains, widths)]
    return points


def _point(series: SeriesKey, W: int, L: int, strategy: Strategy, rows: Sequence[_Row], means: Floats) -> MeasuredPoint:
    """One point from the rows that have enough chains; ``means`` holds each row's mean costs of a chain."""
    enough = [i for i, row in enumerate(rows) if len(row.chains) >= W]
    costs = W * means[enough]  # (rows, COSTS): of W chains, by the mean over all that there are
    rows = [rows[i] for i in enough]
    accuracy = strategy.accuracy([row.votes for row in rows], W)
    places = {problem: i for i, problem in enumerate(dict.fromkeys(row.problem for row in rows))}
    # Rows that differ in the seed alone are one problem: sums over its rows / their count are means over seeds.
    place = np.array([places[row.problem] for row in rows])
    count = np.bincount(place)
    # Realised compression is a ratio of sums over all chains, not a mean of ratios: long chains count more.
    reads = sum(chain.costs[0] for row in rows for chain in row.chains)
    dense = sum(chain.dense_reads for row in rows for chain in row.chains)
    # (rows, 3): tokens of the prompt, what prefill leaves and reads; by row as by problem.
    prompts = np.array([np.mean([chain.prompt for chain in row.chains], axis=0) for row in rows])
    tokens, left, prefill_reads = (float((np.bincount(place, prompts[:, i]) / count).mean()) for i in range(3))
    silent = [
        [chain.complete for chain in row.chains if chain.vote.answer is None] for row in rows
    ]  # chains without an answer
    shares = [
        [kinds.count(complete) / len(row.chains) for kinds, row in zip(silent, rows, strict=True)]
        for complete in (False, True)
    ]
    truncated, no_answer = (float((np.bincount(place, share) / count).mean()) for share in shares)
    return MeasuredPoint(
        series=series,
        W=W,
        L=L,
        vote=strategy.name,
        problems=tuple(places),
        accuracy=np.bincount(place, accuracy) / count,
        costs={axis: np.bincount(place, costs[:, i]) / count for i, axis in enumerate(COSTS)},
        realised_cr=dense / reads if reads else float("nan"),
        n_seeds=len({row.seed for row in rows}),
        truncated=truncated,
        no_answer=no_answer,
        prefill_kv=W * left,
        prefill_reads=prefill_reads,
        retained=left / tokens if tokens else math.nan,
    )


def of_tasks(points: Iterable[MeasuredPoint], names: Sequence[str]) -> list[MeasuredPoint]:
    """The points of some tasks.

    Args:
        points: The points.
        names: Of the tasks; ``niah_single`` stands for all its lengths, ``niah_single@4096`` for one.

    Raises:
        ResultsError: One of them has no points.
    """
    points = list(points)
    names_of = {point.series.task: {point.series.task, tasks.without_context(point.series.task)} for point in points}
    if unknown := set(names).difference(*names_of.values()):
        known = ", ".join(sorted(names_of))
        raise ResultsError(f"no points of the task {min(unknown)!r}: choose of those that are there, {known}")
    return [point for point in points if not names_of[point.series.task].isdisjoint(names)]


def name_caches(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points, with the type of a quantised cache in the method's name if there are caches of several types.

    So the curves of one method over caches of several types stay apart where runs are shown together.
    """
    types = {point.series.kv_dtype for point in points}
    names = [name_cache(point.series.method, point.series.kv_dtype, types) for point in points]
    return [
        point if name == point.series.method else replace(point, series=point.series._replace(method=name))
        for point, name in zip(points, names, strict=True)
    ]


def name_cache(method: str, kv_dtype: str, types: Collection[str]) -> str:
    """The name of a method over a cache, with the cache's type if it is quantised and there are several types."""
    return method if kv_dtype == AUTO or len(types) < 2 else f"{method} {kv_dtype}"


def _type_of_cache(sample: Sample) -> str:
    return AUTO if sample.kv_dtype in (None, sample.dtype) else str(sample.kv_dtype)


def check_axis(axis: str) -> None:
    """Refuse a name that is no cost axis.

    Raises:
        ResultsError: Unknown axis.
    """
    if axis not in COSTS:
        raise ResultsError(f"unknown axis {axis!r}; known axes: {', '.join(COSTS)}")
