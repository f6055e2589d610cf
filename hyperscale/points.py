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
from hyperscale.kv.trace import dense_reads
from hyperscale.scoring import voting

if TYPE_CHECKING:
    import pandas as pd

Sample = Mapping[str, Any]
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
        vote: "majority" or "pass".
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

    Accuracy is the mean over problems (then seeds) of the expectation over subsets of W chains of the majority vote or
    of pass@W, and its standard error is clustered by problem; both in percent. Costs are per problem: W times the mean
    chain, mean over problems. ``seconds`` is the time chains spent in the batch, shared with the others in it; a cut
    chain counts in proportion to its tokens. ``truncated`` and ``no_answer`` are the percentages of chains that L cut
    off before an answer, and that ended without one.

    Args:
        samples: Lines of ``samples.jsonl``, of one run or several.
        strategies: Task to "majority" or "pass"; asked of `hyperscale.tasks` where absent.

    Raises:
        ResultsError: A sample lacks a field.
        TaskError: A task is neither in ``strategies`` nor known.
    """
    import pandas as pd

    return pd.DataFrame([cell.row() for cell in cells(samples, strategies)], columns=list(COLUMNS))


def cells(samples: Samples, strategies: Mapping[str, str] | None = None) -> list[Cell]:
    """The points before averaging over problems; arguments and errors as for `points`.

    Only problems with at least W chains at an L count for that point: after an interruption a point may rest on few
    (``n_problems``), and as quick chains finish first, these are not a random choice. W runs over powers of two.
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
        return [{str(name): value for name, value in row.items()} for row in samples.to_dict("records")]
    return samples


class _Cut(NamedTuple):
    """A chain cut to some L."""

    answer: str | None
    correct: bool
    complete: bool
    costs: tuple[float, ...]
    dense: float


class _Row(NamedTuple):
    """The chains of one problem and seed, in chain order."""

    problem: str
    seed: int
    cuts: list[_Cut]


def _cut(sample: Sample, length: int) -> _Cut | None:
    """The chain as a run with maximum ``length`` would have given it, or None if the sample cannot tell."""
    limit = sample["max_new_tokens"]
    if limit < length or (limit > length and not sample.get("length_invariant", True)):
        return None
    lengths = sample["lengths"]
    if length >= lengths[-1]:
        i = len(lengths) - 1
    elif length in lengths:
        i = list(lengths).index(length)
    else:
        return None
    tokens, peak = lengths[i], sample["peak_kv"][i]
    seconds = sample["seconds"] * tokens / max(lengths[-1], 1)
    costs = (sample["kv_reads"][i], peak, peak * sample["kv_entry_bytes"], tokens, seconds)
    answer = sample["answers"][i]
    correct = answer is not None and bool(sample["correct"][i])
    complete = i == len(lengths) - 1 and sample["finish"] != "length"
    return _Cut(answer, correct, complete, costs, dense_reads(sample["prompt_tokens"], tokens))


def _arm_cells(arm: Arm, samples: Sequence[Sample], strategies: Mapping[str, str]) -> list[Cell]:
    strategy, lengths = _task(arm.task, strategies)
    limits = {int(sample["max_new_tokens"]) for sample in samples}
    seen = {int(n) for sample in samples for n in sample["lengths"][:-1]} | set(lengths or ())
    found = []
    for length in sorted(limits | {n for n in seen if n <= max(limits)}):
        # Keyed by chain, so that a chain generated for two different L counts once.
        chains: dict[tuple[str, int], dict[int, _Cut]] = {}
        for sample in samples:
            if (cut := _cut(sample, length)) is not None:
                key = (str(sample["problem"]), int(sample["seed"]))
                chains.setdefault(key, {})[int(sample["chain"])] = cut
        rows = [_Row(*key, [group[chain] for chain in sorted(group)]) for key, group in chains.items()]
        means = np.array([np.mean([cut.costs for cut in row.cuts], axis=0) for row in rows])
        widest = max((len(row.cuts) for row in rows), default=0)
        found += [_cell(arm, 1 << k, length, strategy, rows, means) for k in range(widest.bit_length())]
    return found


def _task(name: str, strategies: Mapping[str, str]) -> tuple[str, tuple[int, ...] | None]:
    """A task's strategy, and its lengths if it is known (else they are read off the traces)."""
    if name in strategies:
        return strategies[name], None
    from hyperscale import tasks

    task = tasks.load(name)
    return task.strategy, task.lengths


def _cell(arm: Arm, width: int, length: int, strategy: str, rows: Sequence[_Row], means: Floats) -> Cell:
    """One point from the rows that have enough chains; ``means`` holds each row's mean costs of a chain."""
    enough = [i for i, row in enumerate(rows) if len(row.cuts) >= width]
    costs = width * means[enough]
    rows = [rows[i] for i in enough]
    accuracy = _accuracy([row.cuts for row in rows], width, strategy)
    places = {problem: i for i, problem in enumerate(dict.fromkeys(row.problem for row in rows))}
    place = np.array([places[row.problem] for row in rows])  # seeds of a problem fall together
    count = np.bincount(place)
    reads = sum(cut.costs[0] for row in rows for cut in row.cuts)
    dense = sum(cut.dense for row in rows for cut in row.cuts)
    silent = [[cut.complete for cut in row.cuts if cut.answer is None] for row in rows]  # chains without an answer
    shares = [
        [kinds.count(complete) / len(row.cuts) for kinds, row in zip(silent, rows, strict=True)]
        for complete in (False, True)
    ]
    truncated, no_answer = (float((np.bincount(place, share) / count).mean()) for share in shares)
    return Cell(
        arm=arm,
        W=width,
        L=length,
        vote=strategy,
        problems=tuple(places),
        accuracy=np.bincount(place, accuracy) / count,
        costs={axis: np.bincount(place, costs[:, i]) / count for i, axis in enumerate(COSTS)},
        realised_cr=dense / reads if reads else float("nan"),
        n_seeds=len({row.seed for row in rows}),
        truncated=truncated,
        no_answer=no_answer,
    )


def _accuracy(rows: Sequence[Sequence[_Cut]], width: int, strategy: str) -> Floats:
    """(rows,), the expected verdict of each row's chains; rows with equally many chains are computed together."""
    result = np.empty(len(rows))
    if strategy == "pass":
        for i, cuts in enumerate(rows):
            result[i] = voting.pass_at_k(len(cuts), sum(cut.correct for cut in cuts), width)
        return result
    for size in {len(cuts) for cuts in rows}:
        places = [i for i, cuts in enumerate(rows) if len(cuts) == size]
        codes = np.array([voting.encode([cut.answer for cut in rows[i]]) for i in places])
        correct = np.array([[cut.correct for cut in rows[i]] for i in places])
        result[places] = voting.majority_accuracy(codes, correct, width)
    return result
