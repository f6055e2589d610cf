"""Computes margins: how far one method's frontier lies above another's, with 95 % intervals over problems.

Margin of a over b: area between their frontiers over their common cost interval / the interval's length, in points of
accuracy; once on the linear cost axis (frontiers interpolated linearly in cost), once on the log2 axis (interpolated
linearly in log2 of cost). The paper does not say which it integrates over, so both are always given. The common
interval runs from the higher of the two cheapest points' costs to the lower of the two most expensive points' costs.

Intervals are those of `hyperscale.analysis.bootstrap`, which says how they are made and how far to trust them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.bootstrap import Bootstrap, confidence_intervals
from hyperscale.analysis.frontier import mean_gap
from hyperscale.errors import ResultsError
from hyperscale.methods.names import KVPRESS, VANILLA, rank
from hyperscale.results.intervals import MIN_PROBLEMS, equal_interval
from hyperscale.results.points import COSTS, check_axis

if TYPE_CHECKING:
    from pandas import DataFrame


Floats = NDArray[np.float64]
Interval = tuple[float, float]
MethodPair = tuple[str, str]
NO_INTERVAL: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Margin:
    """By how much frontier ``a`` lies above frontier ``b``.

    Attributes:
        a: Method.
        b: Method.
        task: Task.
        axis: Cost axis.
        linear: Margin on the linear axis, in percentage points; NaN where the frontiers have no common interval.
        linear_ci: Its 95 % bootstrap interval over problems; NaN with fewer than `MIN_PROBLEMS` problems, or where
            fewer than half of the resamples have a margin.
        log2: Margin on the log2 axis, in percentage points.
        log2_ci: Its 95 % bootstrap interval over problems, NaN as the linear one.
        common_costs: The common interval of costs, in the axis's unit.
        n_problems: Problems that both methods were run on; only they count.
        model: Model.
    """

    a: str
    b: str
    task: str
    axis: str
    linear: float
    linear_ci: Interval
    log2: float
    log2_ci: Interval
    common_costs: Interval
    n_problems: int
    model: str = ""

    @property
    def has_enough_problems(self) -> bool:
        """Whether there are enough problems for intervals."""
        return self.n_problems >= MIN_PROBLEMS


def compute_margin(bootstrap: Bootstrap, a: str, b: str, axis: str) -> Margin:
    """The margin of method ``a`` over method ``b``, both of the bootstrap's methods.

    Every resample draws the same problems for both, and has points, frontiers, a common interval and areas of its own.
    """
    series = bootstrap.points[a][0].series
    problems = bootstrap.common_problems(a, b)
    if not problems:
        return Margin(a, b, series.task, axis, np.nan, NO_INTERVAL, np.nan, NO_INTERVAL, NO_INTERVAL, 0, series.model)
    # Rows: the sample's margin, then each resample's. The common interval is reported on the linear axis only; on the
    # log2 axis it is the same one.
    (linear, low, high), (log2, _, _) = (
        mean_gap(*(bootstrap.resample_frontiers(method, axis, problems, log2=log2) for method in (a, b)))
        for log2 in (False, True)
    )
    n = len(problems)
    common_costs = NO_INTERVAL if np.isnan(linear[0]) else (float(low[0]), float(high[0]))
    return Margin(
        *(a, b, series.task, axis),
        linear=float(linear[0]),
        linear_ci=_confidence_interval(linear, n, same=a == b),
        log2=float(log2[0]),
        log2_ci=_confidence_interval(log2, n, same=a == b),
        common_costs=common_costs,
        n_problems=n,
        model=series.model,
    )


def compute_margins(
    bootstraps: Iterable[Bootstrap], pairs: Sequence[MethodPair] | None = None, axes: Sequence[str] = COSTS
) -> list[Margin]:
    """The margins of pairs of methods, wherever both of a pair have chains.

    Args:
        bootstraps: One for each model and task.
        pairs: (a, b) each; by default every method over vanilla.
        axes: Cost axes.

    Raises:
        ResultsError: Unknown axis, or a pair of which no task has both methods.
    """
    for axis in axes:
        check_axis(axis)
    bootstraps = list(bootstraps)
    methods = sorted({method for bootstrap in bootstraps for method in bootstrap.points}, key=rank)
    for a, b in pairs or ():
        if not any({a, b} <= set(bootstrap.points) for bootstrap in bootstraps):
            raise ResultsError(
                f"no margin {a}:{b}: no task has chains of both; there are chains of: {', '.join(methods)}"
            )
    if pairs is None:
        pairs = [(method, VANILLA) for method in methods if method != VANILLA]
    return [
        compute_margin(bootstrap, a, b, axis)
        for bootstrap in bootstraps
        for a, b in pairs
        if {a, b} <= set(bootstrap.points)
        for axis in axes
    ]


def parse_pairs(text: str) -> list[MethodPair]:
    """Pairs written ``dms:vanilla,dms:window``: the margin of the first method over the second.

    Raises:
        ResultsError: The text is written otherwise, or a pair compares a method with itself.
    """
    pairs = []
    for part in text.split(","):
        methods = _join_presses([word.strip() for word in part.split(":")])
        if len(methods) != 2 or not all(methods) or methods[0] == methods[1]:
            raise ResultsError(
                f"margins {text!r}: write pairs of two methods with commas between them, e.g. dms:vanilla,dms:window"
            )
        pairs.append((methods[0], methods[1]))
    return pairs


def _join_presses(words: list[str]) -> list[str]:
    """Method names from words between colons: kvpress's have colons themselves, as ``kvpress:DecodingPress:TOVAPress``.

    Every press's name ends in "Press" and no other method's does, so a press belongs to the ``kvpress`` before it.
    """
    methods: list[str] = []
    for word in words:
        if word.endswith("Press") and methods and f"{methods[-1]}:".startswith(KVPRESS):
            methods[-1] += f":{word}"
        else:
            methods.append(word)
    return methods


def _confidence_interval(values: Floats, problems: int, *, same: bool) -> Interval:
    """Interval of a margin, row 0 the sample's own; NaN with few problems, or if most resamples have no margin.

    ``same``: of a method over itself, which is 0 for certain.
    """
    if problems < MIN_PROBLEMS or np.isnan(values[0]):
        return NO_INTERVAL
    low, high = (float(end[0]) for end in confidence_intervals(values[:, None]))
    if low == high and not same:  # no resample differs: that no problem does is no proof that none would
        half = 100 * equal_interval(problems)
        return low - half, high + half
    return low, high


COLUMNS = (
    *("model", "task", "a", "b", "axis", "n_problems", "common_low", "common_high"),
    *("linear", "linear_low", "linear_high", "log2", "log2_low", "log2_high"),
)


def to_frame(margins: Sequence[Margin]) -> "DataFrame":
    """Margins, one a row, with the columns of ``margins.csv``; empty where a value does not exist."""
    import pandas as pd

    rows = [
        (
            *(m.model, m.task, m.a, m.b, m.axis, m.n_problems, *m.common_costs),
            *(m.linear, *m.linear_ci, m.log2, *m.log2_ci),
        )
        for m in margins
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
