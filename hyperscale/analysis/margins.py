"""Margins between two frontiers, with intervals that resample problems and take the maximum over points anew.

Margin of a over b: area between their frontiers over their common cost interval / the interval's length, in points of
accuracy; once on the linear cost axis (frontiers interpolated linearly in cost), once on the log2 axis (interpolated
linearly in log2 of cost). The paper does not say which it integrates over, so both are always given. The common
interval runs from the dearer of the two cheapest points to the cheaper of the two most expensive ones.

Intervals are those of `hyperscale.analysis.bootstrap`, which says how far to trust them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.bootstrap import MIN_PROBLEMS, N_BOOT, Bootstrap, ends, reliable
from hyperscale.analysis.frontier import gap
from hyperscale.errors import ResultsError
from hyperscale.results.points import COSTS, Cell, Samples, cells, check_axis

if TYPE_CHECKING:
    from pandas import DataFrame


Floats = NDArray[np.float64]
Interval = tuple[float, float]
Pair = tuple[str, str]
_METHOD = r"kvpress(?::\w+Press)+|[^:]+"  # the only names with colons
NOWHERE: Interval = (float("nan"), float("nan"))
BASELINE = "vanilla"


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
        interval: The common interval of costs, in the axis's unit.
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
    interval: Interval
    n_problems: int
    model: str = ""

    @property
    def enough(self) -> bool:
        """Whether there are enough problems for intervals."""
        return self.n_problems >= MIN_PROBLEMS


def margin(
    samples: "Samples | Sequence[Cell]",
    a: str,
    b: str,
    task: str,
    axis: str,
    n_boot: int = N_BOOT,
    seed: int = 0,
    strategies: Mapping[str, str] | None = None,
) -> Margin:
    """The margin of method ``a`` over method ``b``.

    Each resample draws the problems with replacement, the same ones for both methods, and computes points, frontiers,
    the common interval and the areas again. A method's frontier unites its CRs (and its runs, if there are several).

    Args:
        samples: Lines of ``samples.jsonl``, or the cells made of them (`hyperscale.results.points.cells`), to make
            those once.
        a: Method.
        b: Method.
        task: Task.
        axis: Cost axis.
        n_boot: Number of resamples.
        seed: Of the resampling.
        strategies: As for `hyperscale.results.points.points`.

    Raises:
        ResultsError: Unknown axis, a method without chains on the task, or samples of several models.
    """
    check_axis(axis)
    found = _cells(samples, task, strategies)
    of_a, of_b = _of(found, a, task), _of(found, b, task)
    if len(models := sorted({cell.arm.model for cell in of_a + of_b})) > 1:
        raise ResultsError(f"samples of several models ({', '.join(models)}) share no frontier: pass one model's")
    return compare(Bootstrap({id(cell): cell for cell in of_a + of_b}.values(), n_boot, seed), a, b, axis)


def compare(made: Bootstrap, a: str, b: str, axis: str) -> Margin:
    """The margin of method ``a`` over method ``b``, both of the bootstrap's methods, on frontiers that it keeps."""
    arm = made.methods[a][0].arm
    problems = made.problems(a, b)
    if not problems:
        return Margin(a, b, arm.task, axis, np.nan, NOWHERE, np.nan, NOWHERE, NOWHERE, 0, arm.model)
    (linear, low, high), (log2, _, _) = (
        gap(*(made.envelope(method, axis, problems, log2=log2) for method in (a, b))) for log2 in (False, True)
    )
    n = len(problems)
    interval = NOWHERE if np.isnan(linear[0]) else (float(low[0]), float(high[0]))
    return Margin(
        *(a, b, arm.task, axis),
        *(float(linear[0]), _ci(linear, n), float(log2[0]), _ci(log2, n)),
        *(interval, n, arm.model),
    )


def margins(
    made: Iterable[Bootstrap], pairs: Sequence[Pair] | None = None, axes: Sequence[str] = COSTS
) -> list[Margin]:
    """Every margin asked for, wherever both methods of a pair have chains.

    Args:
        made: A bootstrap for each model and task.
        pairs: (a, b) each; by default every method over vanilla.
        axes: Cost axes.

    Raises:
        ResultsError: Unknown axis, or a pair of which no task has both methods.
    """
    for axis in axes:
        check_axis(axis)
    made = list(made)
    wanted = pairs if pairs is not None else [(method, BASELINE) for method in _methods(made) if method != BASELINE]
    for a, b in pairs or ():
        if not any({a, b} <= set(each.methods) for each in made):
            raise ResultsError(
                f"no margin {a}:{b}: no task has chains of both; there are chains of: {', '.join(_methods(made))}"
            )
    return [
        compare(each, a, b, axis) for each in made for a, b in wanted if {a, b} <= set(each.methods) for axis in axes
    ]


def parse_pairs(text: str) -> list[Pair]:
    """Pairs written ``dms:vanilla,dms:window``: the margin of the first method over the second.

    Raises:
        ResultsError: The text is written otherwise, or a pair compares a method with itself.
    """
    pairs = []
    for part in text.split(","):
        found = re.fullmatch(rf"({_METHOD}):({_METHOD})", re.sub(r"\s*:\s*", ":", part.strip()))
        if not found or found[1] == found[2]:
            raise ResultsError(
                f"margins {text!r}: write pairs of two methods with commas between them, e.g. dms:vanilla,dms:window"
            )
        pairs.append((found[1], found[2]))
    return pairs


def _cells(samples: "Samples | Sequence[Cell]", task: str, strategies: Mapping[str, str] | None) -> list[Cell]:
    """The cells of one task; making them is the slow part, so other tasks' samples are left out first."""
    given: list[Any] = samples.to_dict("records") if hasattr(samples, "to_dict") else list(samples)
    if given and isinstance(given[0], Cell):
        return [cell for cell in given if cell.arm.task == task]
    return cells([sample for sample in given if sample.get("task", task) == task], strategies)


def _of(found: Sequence[Cell], method: str, task: str) -> list[Cell]:
    part = reliable(cell for cell in found if cell.arm.method == method)
    if not part:
        there = sorted({cell.arm.method for cell in found})
        raise ResultsError(f"no chains of {method} on {task}; there are chains of: {', '.join(there) or 'no method'}")
    return part


def _methods(made: Iterable[Bootstrap]) -> list[str]:
    return sorted({method for each in made for method in each.methods})


def _ci(values: Floats, problems: int) -> Interval:
    """Interval of margins, row 0 the sample's own; NaN with few problems, or if most resamples have no margin."""
    if problems < MIN_PROBLEMS or np.isnan(values[0]):
        return NOWHERE
    low, high = ends(values[:, None])
    return float(low[0]), float(high[0])


COLUMNS = (
    *("model", "task", "a", "b", "axis", "n_problems", "common_low", "common_high"),
    *("linear", "linear_low", "linear_high", "log2", "log2_low", "log2_high"),
)


def frame(found: Sequence[Margin]) -> "DataFrame":
    """Margins, one a row, with the columns of ``margins.csv``; empty where a value does not exist."""
    import pandas as pd

    rows = [
        (
            *(m.model, m.task, m.a, m.b, m.axis, m.n_problems, *m.interval),
            *(m.linear, *m.linear_ci, m.log2, *m.log2_ci),
        )
        for m in found
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
