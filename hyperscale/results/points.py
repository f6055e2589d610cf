"""From finished chains to points: accuracy and cost of every W-L-CR that the chains at hand allow.

A chain generated up to some L also gives every shorter L, by cutting it there, for methods whose rule does not depend
on the maximum length; several chains give every smaller W, in expectation over subsets. So all of a method's points
come from one pass of generation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hyperscale.errors import ResultsError
from hyperscale.results.truncation import Cut, Sample, cut, eligible
from hyperscale.scoring.voting import strategies as registry
from hyperscale.scoring.voting.strategies import Strategy

if TYPE_CHECKING:
    import pandas as pd

Samples: TypeAlias = "Iterable[Sample] | pd.DataFrame"
Floats = NDArray[np.float64]

COSTS = ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds")
COLUMNS = (
    *("run", "model", "method", "engine", "task", "W", "L", "CR", "realised_cr", "n_problems", "n_seeds"),
    *("accuracy", "accuracy_se", "vote", *COSTS, "truncated", "no_answer"),
)


class Arm(NamedTuple):
    """What is held fixed while W and L vary."""

    run: str
    model: str
    method: str
    engine: str
    task: str
    CR: float


@dataclass(frozen=True)
class Cell:
    """One point before averaging over problems.

    Attributes:
        arm: Run, model, method, engine, task and CR.
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
    """

    arm: Arm
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

    @property
    def label(self) -> str:
        """The point written W-L-CR."""
        return f"{self.W}-{self.L}-{self.arm.CR:g}"

    def row(self) -> dict[str, Any]:
        """The point: a row of ``points.csv``."""
        n = len(self.problems)
        se = self.accuracy.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        row = {
            **self.arm._asdict(),
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
        }
        return {column: row[column] for column in COLUMNS}


def points(samples: Samples, strategies: Mapping[str, str] | None = None) -> "pd.DataFrame":
    """Every point the samples allow, one a row, with the columns of ``points.csv`` in their order.

    Accuracy is the mean over problems (then seeds) of the expectation of the verdict over subsets of W chains, and its
    standard error is clustered by problem; both in percent. Costs are per problem: W times the mean
    chain, mean over problems. ``seconds`` is the time chains spent in the batch, shared with the others in it; a cut
    chain counts in proportion to its tokens. ``truncated`` and ``no_answer`` are the percentages of chains that L cut
    off before an answer, and that ended without one.

    Args:
        samples: Lines of ``samples.jsonl``, of one run or several.
        strategies: Task to the name of a strategy. Where absent it is the one chosen for the run (a sample's ``vote``,
            which `results.read` sets), else the task's own.

    Raises:
        ConfigError: There is no such strategy.
        ResultsError: A sample lacks a field, or the scores that the strategy needs.
        TaskError: A task is neither in ``strategies`` nor known.
    """
    import pandas as pd

    return pd.DataFrame([cell.row() for cell in cells(samples, strategies)], columns=list(COLUMNS))


def cells(samples: Samples, strategies: Mapping[str, str] | None = None) -> list[Cell]:
    """The points before averaging over problems; arguments and errors as for `points`.

    Only problems with at least W chains at an L count for that point: after an interruption a point may rest on few
    (``n_problems``), and as quick chains finish first, these are not a random choice. W runs over powers of two. No
    point is made at an L of the task that the run did not look at, as with ``--length`` and longer ones alone.
    """
    groups: dict[Arm, list[Sample]] = {}
    try:
        for sample in _records(samples):
            fields = {name: str(sample[name]) for name in Arm._fields if name != "CR"}
            arm = Arm(**fields, CR=float(sample["CR"]))
            groups.setdefault(arm, []).append(sample)
        return [cell for arm in groups for cell in _arm_cells(arm, groups[arm], strategies or {})]
    except KeyError as error:
        raise ResultsError(
            f"a sample lacks the field {error.args[0]!r}: its file is corrupt or of another version"
        ) from None


def _records(samples: Samples) -> Iterable[Sample]:
    import pandas as pd

    if isinstance(samples, pd.DataFrame):
        rows = samples.to_dict("records")  # in which a field that only other lines have is NaN
        return [{str(name): value for name, value in row.items() if value == value} for row in rows]
    return samples


class _Row(NamedTuple):
    """The chains of one problem and seed, in chain order."""

    problem: str
    seed: int
    cuts: list[Cut]


def _arm_cells(arm: Arm, samples: Sequence[Sample], strategies: Mapping[str, str]) -> list[Cell]:
    chosen = next((sample["vote"] for sample in samples if sample.get("vote")), None)
    strategy, lengths = _task(arm.task, strategies, chosen)
    limits = {int(sample["max_new_tokens"]) for sample in samples}
    seen = {int(n) for sample in samples for n in sample["lengths"][:-1]} | set(lengths or ())
    found = []
    for length in sorted(limits | {n for n in seen if n <= max(limits)}):
        # Keyed by chain, so that a chain generated for two different L counts once.
        chains: dict[tuple[str, int], dict[int, Cut]] = {}
        some = [(sample, cut(sample, length, strategy.scorer)) for sample in samples if eligible(sample, length)]
        if any(one is None for _, one in some):
            continue  # a run that did not look there: only its chains that ended earlier are known, the easy ones
        for sample, one in some:
            if one is not None:
                key = (str(sample["problem"]), int(sample["seed"]))
                chains.setdefault(key, {})[int(sample["chain"])] = one
        rows = [_Row(*key, [group[chain] for chain in sorted(group)]) for key, group in chains.items()]
        means = np.array([np.mean([one.costs for one in row.cuts], axis=0) for row in rows])
        widest = max((len(row.cuts) for row in rows), default=0)
        found += [_cell(arm, width, length, strategy, rows, means) for width in strategy.widths(widest)]
    return found


def _task(name: str, strategies: Mapping[str, str], chosen: str | None) -> tuple[Strategy, tuple[int, ...] | None]:
    """A task's strategy, and its lengths if it is known (else they are read off the traces)."""
    if name in strategies:
        return registry.get(strategies[name]), None
    from hyperscale import tasks

    task = tasks.load(name)
    return registry.get(chosen or task.strategy), task.lengths


def _cell(arm: Arm, width: int, length: int, strategy: Strategy, rows: Sequence[_Row], means: Floats) -> Cell:
    """One point from the rows that have enough chains; ``means`` holds each row's mean costs of a chain."""
    enough = [i for i, row in enumerate(rows) if len(row.cuts) >= width]
    costs = width * means[enough]
    rows = [rows[i] for i in enough]
    accuracy = strategy.accuracy([[one.vote for one in row.cuts] for row in rows], width)
    places = {problem: i for i, problem in enumerate(dict.fromkeys(row.problem for row in rows))}
    place = np.array([places[row.problem] for row in rows])  # seeds of a problem fall together
    count = np.bincount(place)
    reads = sum(one.costs[0] for row in rows for one in row.cuts)
    dense = sum(one.dense for row in rows for one in row.cuts)
    silent = [[one.complete for one in row.cuts if one.vote.answer is None] for row in rows]  # chains without an answer
    shares = [
        [kinds.count(complete) / len(row.cuts) for kinds, row in zip(silent, rows, strict=True)]
        for complete in (False, True)
    ]
    truncated, no_answer = (float((np.bincount(place, share) / count).mean()) for share in shares)
    return Cell(
        arm=arm,
        W=width,
        L=length,
        vote=strategy.name,
        problems=tuple(places),
        accuracy=np.bincount(place, accuracy) / count,
        costs={axis: np.bincount(place, costs[:, i]) / count for i, axis in enumerate(COSTS)},
        realised_cr=dense / reads if reads else float("nan"),
        n_seeds=len({row.seed for row in rows}),
        truncated=truncated,
        no_answer=no_answer,
    )


def check_axis(axis: str) -> None:
    """Refuse a name that is no cost axis.

    Raises:
        ResultsError: Unknown axis.
    """
    if axis not in COSTS:
        raise ResultsError(f"unknown axis {axis!r}; known axes: {', '.join(COSTS)}")
