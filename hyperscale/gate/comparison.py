"""Judges which accuracies and margins fell from a baseline to results, beyond tolerance and beyond noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.frontier import find_frontiers, mean_gap
from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import AXES, CutRecord, GateRecord
from hyperscale.gate.matching import MatchedRecords, PointKey, match
from hyperscale.gate.swap_test import SWAPS, Changes, draw_signs, simultaneous_intervals
from hyperscale.methods.names import VANILLA

Floats = NDArray[np.float64]
Verdict = Literal["ok", "fell", "NA"]


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
        low: Lower end of the simultaneous interval of the change.
        high: Upper end.
        reads: New KV reads / old ones of a point; None for a margin.
        verdict: "fell" if the change is below -tolerance and the interval excludes 0; "NA" if there is no change to
            judge, as the frontiers have no common costs.
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
    reads: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """All rows, and how they were judged.

    Attributes:
        rows: By task, points before margins.
        notes: What differs between baseline and results though they can be compared, one line each.
        tolerance: In percentage points.
        confidence: Of all intervals together, in percent.
    """

    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    tolerance: float
    confidence: float

    @property
    def falls(self) -> tuple[ComparisonRow, ...]:
        """The rows that make the gate fail."""
        return tuple(row for row in self.rows if row.verdict == "fell")


class _PointTable(NamedTuple):
    """Points of one (model, task), (problems, points) each: accuracy in percent, then a cost for each axis."""

    accuracy: Floats
    costs: dict[str, Floats]


def compare(
    baseline: GateRecord, results: GateRecord, tolerance: float = 2.0, confidence: float = 99.0, swaps: int = SWAPS
) -> Comparison:
    """Hold results against a baseline.

    Args:
        baseline: The record to hold them against.
        results: The record of the results.
        tolerance: Falls up to so many percentage points are accepted, whatever the noise.
        confidence: Percent of comparisons of like with like in which no interval at all excludes no change.
        swaps: Repetitions of the swap test.

    Raises:
        ResultsError: The two cannot be compared, there are too few problems, or an argument is out of range.
    """
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ResultsError(f"a tolerance of {tolerance:g} is no number of percentage points, 0 or more")
    if not 50 <= confidence < 100:
        raise ResultsError(f"a confidence of {confidence:g} is not in the range from 50 to below 100 percent")
    matched = match(baseline, results)
    # Of the 2^n ways to swap n problems, two show the full change: none swapped, and all. Unless that is rarer than
    # chance allows, even a fall by 100 points on every problem proves nothing.
    min_problems = math.ceil(1 - math.log2(1 - confidence / 100))
    for name, task in matched.tasks.items():
        if len(task.problems) < min_problems:
            raise ResultsError(
                f"{len(task.problems)} problems of {name} cannot tell a fall from noise at {confidence:g} % "
                f"confidence: at least {min_problems} are needed; use a larger --limit, or lower --confidence"
            )
    groups: dict[tuple[str, str], list[PointKey]] = {}
    for point in matched.old:
        groups.setdefault((point.task, point.model), []).append(point)
    # Swaps are seeded by task: models that share a task share its problems, and so the swaps.
    order = sorted(matched.tasks)
    families = [_changes(matched, points, [swaps, order.index(task)]) for (task, _), points in sorted(groups.items())]
    rows = []
    # One call for all of them: the intervals hold together, over every task and model.
    simultaneous = simultaneous_intervals([changes for _, changes in families], confidence / 100)
    for (quantities, _), group_intervals in zip(families, simultaneous, strict=True):
        for quantity, interval in zip(quantities, group_intervals, strict=True):
            fall = interval.significant and interval.change < -tolerance
            verdict: Verdict = "NA" if math.isnan(interval.change) else "fell" if fall else "ok"
            ends = (interval.change, interval.low, interval.high)
            rows.append(ComparisonRow(*quantity[:-1], *ends, quantity.reads, verdict))
    return Comparison(tuple(rows), matched.notes, tolerance, confidence)


class _Quantity(NamedTuple):
    """An accuracy or a margin before it is judged; fields as in `ComparisonRow`."""

    model: str
    task: str
    method: str
    CR: float | None
    name: str
    old: float
    new: float
    reads: float | None


def _changes(
    matched: MatchedRecords, points: Sequence[PointKey], seed: Sequence[int]
) -> tuple[list[_Quantity], Changes]:
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
        reads = new.costs["kv_reads"][:, k].mean() / max(old.costs["kv_reads"][:, k].mean(), 1e-12)
        name = point.label
        before, after = float(old.accuracy[:, k].mean()), float(new.accuracy[:, k].mean())
        quantities.append(_Quantity(model, task, point.method, point.CR, name, before, after, float(reads)))
    # Column by column as the quantities: first all points, then each method's margins.
    columns = [2 * (sign @ half) / len(problems)]
    for method, name, values in _margins(points, old, new, sign):
        quantities.append(_Quantity(model, task, method, None, name, float(values[1, 0]), float(values[0, 0]), None))
        columns.append((values[0] - values[1])[:, None])
    return quantities, Changes(np.hstack(columns), len(problems))


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
            for method in sorted(places.keys() - {VANILLA}):
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
