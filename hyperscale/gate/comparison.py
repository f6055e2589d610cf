"""Judges which accuracies and margins fell and which costs rose from a baseline to results, beyond tolerance and noise.

Costs are judged by themselves, as a margin cannot show them where the frontiers have no common costs any more: a method
that reads three times as much may then have no margin at all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.frontier import find_frontiers, mean_gap
from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import AXES, CutRecord, GateRecord
from hyperscale.gate.matching import MatchedRecords, PointKey, match
from hyperscale.gate.swap_test import SWAPS, ChangeInterval, Changes, draw_signs, simultaneous_intervals
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.intervals import MIN_PROBLEMS

Floats = NDArray[np.float64]
Verdict = Literal["ok", "fell", "reads rose", "peak rose", "NA"]
BAD: tuple[Verdict, ...] = ("fell", "reads rose", "peak rose")
COST_TOLERANCE = 10.0  # percent
_ROSE: dict[str, Verdict] = {"kv_reads": "reads rose", "peak_kv": "peak rose"}


@dataclass(frozen=True)
class CostChange:
    """How the cost of a point changed; the same for every W, as W chains cost W times as much.

    Attributes:
        axis: Cost axis.
        ratio: New cost / old one.
        low: Lower end of the simultaneous interval of the change, in percent of the old cost; NaN with fewer than
            `MIN_PROBLEMS` problems.
        high: Upper end.
        rose: Whether the change is above the tolerance and the interval excludes 0.
    """

    axis: str
    ratio: float
    low: float
    high: float
    rose: bool

    @property
    def percent(self) -> float:
        """The change in percent of the old cost."""
        return 100 * (self.ratio - 1)


@dataclass(frozen=True)
class ComparisonRow:
    """One accuracy or margin, in percentage points.

    Attributes:
        model: Model.
        task: Task.
        method: Method.
        CR: Nominal compression ratio; None for a margin, whose frontier unites all.
        name: What is compared: a point's "W-L-CR", or "margin, <axis>, linear" or "…, log2".
        old: In the baseline.
        new: In the results.
        change: new - old; NaN if it does not exist on either side.
        low: Lower end of the simultaneous interval of the change; NaN with fewer than `MIN_PROBLEMS` problems.
        high: Upper end.
        costs: How reads and peak of a point changed; none for a margin.
        verdict: "fell" if the change is below -tolerance and the interval excludes 0; else "reads rose" or "peak rose"
            if such a cost did; "NA" if there is no change to judge, as the frontiers have no common costs.
    """

    model: str
    task: str
    method: str
    CR: float | None
    name: str
    old: float
    new: float
    change: float
    low: float
    high: float
    costs: tuple[CostChange, ...]
    verdict: Verdict

    @property
    def reads(self) -> float | None:
        """New KV reads of a point / old ones; None for a margin."""
        return next((cost.ratio for cost in self.costs if cost.axis == "kv_reads"), None)

    @property
    def peak(self) -> float | None:
        """New peak of a point / old one; None for a margin."""
        return next((cost.ratio for cost in self.costs if cost.axis == "peak_kv"), None)


@dataclass(frozen=True)
class Comparison:
    """All rows, and how they were judged.

    Attributes:
        rows: By task, points before margins.
        notes: What differs between baseline and results though they can be compared, one line each.
        tolerance: In percentage points.
        confidence: Of all intervals together, in percent.
        cost_tolerances: By axis, in percent.
    """

    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    tolerance: float
    confidence: float
    cost_tolerances: Mapping[str, float]

    @property
    def falls(self) -> tuple[ComparisonRow, ...]:
        """The rows whose accuracy or margin fell."""
        return tuple(row for row in self.rows if row.verdict == "fell")

    @property
    def failures(self) -> tuple[ComparisonRow, ...]:
        """The rows that make the gate fail."""
        return tuple(row for row in self.rows if row.verdict in BAD)


class _PointTable(NamedTuple):
    """Points of one (model, task), (problems, points) each: accuracy in percent, then a cost for each axis."""

    accuracy: Floats
    costs: dict[str, Floats]


def compare(
    baseline: GateRecord,
    results: GateRecord,
    tolerance: float = 2.0,
    confidence: float = 99.0,
    swaps: int = SWAPS,
    *,
    reads_tolerance: float = COST_TOLERANCE,
    peak_tolerance: float = COST_TOLERANCE,
) -> Comparison:
    """Hold results against a baseline.

    Args:
        baseline: The record to hold them against.
        results: The record of the results.
        tolerance: Falls up to so many percentage points are accepted, whatever the noise.
        confidence: Percent of comparisons of like with like in which no interval at all excludes no change.
        swaps: Repetitions of the swap test.
        reads_tolerance: Rises of a point's KV reads up to so many percent are accepted, whatever the noise.
        peak_tolerance: Likewise of its peak.

    Raises:
        ResultsError: The two cannot be compared, there are too few problems, or an argument is out of range.
    """
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ResultsError(f"a tolerance of {tolerance:g} is no number of percentage points, 0 or more")
    cost_tolerances = {"kv_reads": reads_tolerance, "peak_kv": peak_tolerance}
    for value in cost_tolerances.values():
        if not (value >= 0 and math.isfinite(value)):
            raise ResultsError(f"a tolerance of {value:g} is no rise in percent, 0 or more")
    if not 50 <= confidence < 100:
        raise ResultsError(f"a confidence of {confidence:g} is not in the range from 50 to below 100 percent")
    # What was measured is one of the swaps, and no change can be larger than the largest of all of them.
    if math.ceil(confidence / 100 * (swaps + 1)) > swaps:
        raise ResultsError(
            f"{swaps:,} swaps of problems tell nothing at a confidence of {confidence:g} %: choose at most "
            f"{math.floor(1e4 * swaps / (swaps + 1)) / 100:g}"
        )
    matched = match(baseline, results)
    _require_problems({name: len(task.problems) for name, task in matched.tasks.items()}, confidence)
    groups: dict[tuple[str, str], list[PointKey]] = {}
    for point in sorted(matched.old, key=lambda point: rank(point.method)):  # stable: else as in the baseline
        groups.setdefault((point.task, point.model), []).append(point)
    # Swaps are seeded by task: models that share a task share its problems, and so the swaps.
    order = sorted(matched.tasks)
    families = [_changes(matched, points, [swaps, order.index(task)]) for (task, _), points in sorted(groups.items())]
    rows: list[ComparisonRow] = []
    # One call for all of them: the intervals hold together, over every task and model, and costs are among them.
    groups_of_changes = [changes for family in families for changes in (family.changes, family.cost_changes)]
    simultaneous = iter(simultaneous_intervals(groups_of_changes, confidence / 100))
    for family in families:
        intervals, cost_intervals = next(simultaneous), next(simultaneous)
        costs: dict[_ChainKind, list[CostChange]] = {}
        for cost, interval in zip(family.costs, cost_intervals, strict=True):
            rose = interval.significant and interval.change > cost_tolerances[cost.axis]
            change = CostChange(cost.axis, cost.ratio, *_shown(interval, family.changes.n), rose)
            costs.setdefault(cost.kind, []).append(change)
        for quantity, interval in zip(family.quantities, intervals, strict=True):
            # With such noise even a fall on every problem would be none.
            if math.isinf(interval.low) and interval.change < -tolerance:
                raise ResultsError(
                    f"{family.changes.n} problems of {quantity.task} cannot tell a fall from noise: {quantity.name} "
                    f"of {quantity.method} has changed by {interval.change:+.1f}, and no change would be significant; "
                    "use a larger --limit, or lower --confidence"
                )
            of_point = () if quantity.kind is None else tuple(costs[quantity.kind])
            verdict = _judge(interval, of_point, tolerance)
            ends = (interval.change, *_shown(interval, family.changes.n))
            rows.append(ComparisonRow(*quantity[:-1], *ends, of_point, verdict))
    return Comparison(tuple(rows), matched.notes, tolerance, confidence, cost_tolerances)


def _require_problems(problems: Mapping[str, int], confidence: float) -> None:
    """Refuse tasks of so few problems that not even a fall by 100 points on every one of them would be significant.

    Of the 2^n ways to swap n problems two show the full change: none swapped, and all. Tasks are swapped each by itself
    and have one critical value, so the share of swaps in which some task shows its full change is at most the sum. That
    may be half of what chance is allowed: a sample of the swaps can have more of them.

    Raises:
        ResultsError: That is not rarer than the confidence asks for.
    """
    chance = (1 - confidence / 100) / 2
    if sum(2.0 ** (1 - count) for count in problems.values()) <= chance:
        return
    needed = math.ceil(1 + math.log2(len(problems) / chance))
    name, count = min(problems.items(), key=lambda item: item[1])
    beside = f" beside {len(problems) - 1} more task{'s' * (len(problems) > 2)}" if len(problems) > 1 else ""
    raise ResultsError(
        f"{count} problems of {name}{beside} cannot tell a fall from noise at {confidence:g} % confidence: at least "
        f"{needed} are needed; use a larger --limit or a task of more problems, or lower --confidence"
    )


def _judge(interval: ChangeInterval, costs: Sequence[CostChange], tolerance: float) -> Verdict:
    if math.isnan(interval.change):
        return "NA"
    if interval.significant and interval.change < -tolerance:
        return "fell"
    return next((_ROSE[cost.axis] for cost in costs if cost.rose), "ok")


def _shown(interval: ChangeInterval, problems: int) -> tuple[float, float]:
    """An interval's ends; none where there are too few problems for one."""
    return (interval.low, interval.high) if problems >= MIN_PROBLEMS else (math.nan, math.nan)


class _Quantity(NamedTuple):
    """An accuracy or a margin before it is judged; fields as in `ComparisonRow`."""

    model: str
    task: str
    method: str
    CR: float | None
    name: str
    old: float
    new: float
    kind: "_ChainKind | None"  # of the chains of a point, whose costs are compared


class _ChainKind(NamedTuple):
    """An arm and L: what the cost of a chain depends on."""

    method: str
    CR: float
    kv_budget: int
    L: int


class _CostQuantity(NamedTuple):
    """The cost of an arm's chain at one L before it is judged."""

    kind: "_ChainKind"
    axis: str
    ratio: float


class _Family(NamedTuple):
    """All that is compared of one (model, task), with the changes of each; those of costs in percent."""

    quantities: list[_Quantity]
    changes: Changes
    costs: list[_CostQuantity]
    cost_changes: Changes


def _changes(matched: MatchedRecords, points: Sequence[PointKey], seed: Sequence[int]) -> _Family:
    """Every quantity of one (model, task), measured and after swaps.

    Args:
        matched: Baseline and results.
        points: Those of the model and task.
        seed: Number of swaps, and the task's number.
    """
    model, task = points[0].model, points[0].task
    problems = list(matched.tasks[task].problems)
    old, new = (_tabulate(points, cuts) for cuts in (matched.old, matched.new))
    sign = draw_signs(len(problems), seed[0], seed)
    # A swap turns the sign of a problem's difference, so the change of a mean is a product with the signs.
    half = (new.accuracy - old.accuracy) / 2
    quantities = []
    for k, point in enumerate(points):
        name = point.label
        before, after = float(old.accuracy[:, k].mean()), float(new.accuracy[:, k].mean())
        quantities.append(_Quantity(model, task, point.method, point.CR, name, before, after, _kind(point)))
    # Column by column as the quantities: first all points, then each method's margins.
    columns = [2 * (sign @ half) / len(problems)]
    for method, name, values in _margins(points, old, new, sign):
        quantities.append(_Quantity(model, task, method, None, name, float(values[1, 0]), float(values[0, 0]), None))
        columns.append((values[0] - values[1])[:, None])
    costs, cost_columns = _cost_changes(points, old, new, sign)
    # Equal to the last entry read, they are the same chains again, which have no noise between them.
    full = 100.0 if any(column[0] for column in cost_columns) else 0.0
    return _Family(
        quantities,
        Changes(np.hstack(columns), len(problems), full),
        costs,
        Changes(np.column_stack(cost_columns), len(problems)),
    )


def _kind(point: PointKey) -> _ChainKind:
    return _ChainKind(point.method, point.CR, point.kv_budget, point.L)


def _cost_changes(
    points: Sequence[PointKey], old: _PointTable, new: _PointTable, sign: Floats
) -> tuple[list[_CostQuantity], list[Floats]]:
    """Each cost of an arm at one L, once for all W, and its change in percent after every swap."""
    first: dict[_ChainKind, int] = {}
    for k, point in enumerate(points):
        first.setdefault(_kind(point), k)
    quantities, columns = [], []
    for kind, k in first.items():
        for axis in AXES:
            before, after = old.costs[axis][:, k], new.costs[axis][:, k]
            base = float(before.mean()) or float(after.mean()) or 1.0  # a chain of one token reads nothing
            columns.append(100 * (sign @ (after - before)) / len(before) / base)
            ratio = 1 + float((after - before).mean()) / base
            quantities.append(_CostQuantity(kind, axis, ratio))
    return quantities, columns


def _tabulate(points: Sequence[PointKey], cuts: dict[PointKey, CutRecord]) -> _PointTable:
    accuracy = np.array([cuts[point].accuracy[point.W] for point in points]).T * 100
    costs = {axis: np.array([[v * p.W for v in getattr(cuts[p], axis)] for p in points]).T for axis in AXES}
    return _PointTable(accuracy, costs)


def _margins(
    points: Sequence[PointKey], old: _PointTable, new: _PointTable, sign: Floats
) -> Iterator[tuple[str, str, Floats]]:
    """Each method's margins over vanilla: (method, name, (new and old, swaps) values)."""
    places = {name: [k for k, p in enumerate(points) if p.method == name] for name in {p.method for p in points}}
    if VANILLA not in places:
        return
    # Frontiers are not linear in the points, so they are found anew after every swap: one row each.
    for axis in AXES:
        means = [_swapped(old.accuracy, new.accuracy, sign), _swapped(old.costs[axis], new.costs[axis], sign)]
        for scale, transform in (("linear", np.asarray), ("log2", np.log2)):
            with np.errstate(divide="ignore"):
                accuracy, cost = means[0], transform(means[1])
            for method in sorted(places.keys() - {VANILLA}, key=rank):
                sides = (
                    [find_frontiers(cost[side][:, places[n]], accuracy[side][:, places[n]]) for n in (method, VANILLA)]
                    for side in (0, 1)
                )
                values = [mean_gap(*frontiers)[0] for frontiers in sides]
                yield method, f"margin, {axis}, {scale}", np.array(values)


def _swapped(old: Floats, new: Floats, sign: Floats) -> tuple[Floats, Floats]:
    """(swaps, points) means over problems of the new and of the old side after swaps."""
    middle, apart = (new + old).mean(axis=0) / 2, sign @ ((new - old) / 2) / len(old)
    return middle + apart, middle - apart
