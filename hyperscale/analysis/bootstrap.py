"""Resampled frontiers: problems drawn with replacement, points and frontiers made anew, each frontier only once.

Margins and bands ask for the same frontiers again and again (a method stands in several margins, and has a band), so a
`Bootstrap` keeps them. Every frontier of one `Bootstrap` on the same problems sees the same draws: comparisons are
paired.

Intervals: a maximum over noisy points is biased upwards, more so in resamples of the sample than in the sample. So the
95 % percentile interval of the resamples is extended, on the side to which the bias points, by twice the bootstrap's
estimate of it (the mean of the resamples less the sample's own value).

How far to trust them: in simulations with known margins (32 or 48 points against 16, four or eight chains a problem,
200 trials each) these intervals covered the truth in 87 to 96 % of the trials with 30 problems, in 91 to 98 % with 60
or 120, in 83 to 91 % with 10; percentile intervals alone in 79 to 91 %, 84 to 97 % and 60 to 82 %. Where they missed,
the truth nearly always lay below. A margin itself is too high for the method with more points: in one of these settings
by 7 points with 10 problems, by 4 with 30, by 3 with 60. More problems help; more points do not.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.frontier import COVERAGE, FRONTIER, Envelope, envelope, evaluate
from hyperscale.results.points import Cell

Floats = NDArray[np.float64]
N_BOOT = 1000
# Below this, percentile intervals of a mean are far too narrow (a single problem's has no width at all), and a
# resample holds so few distinct problems that its frontier is that of one or two of them: no interval is given.
MIN_PROBLEMS = 10


class Bootstrap:
    """Frontiers of one task's cells over resampled problems.

    Args:
        found: Cells of one task and model; those of too few problems are left out.
        n_boot: Number of resamples.
        seed: Of the resampling.
    """

    def __init__(self, found: Iterable[Cell], n_boot: int = N_BOOT, seed: int = 0) -> None:
        self.methods: dict[str, list[Cell]] = {}
        for cell in reliable(found):
            self.methods.setdefault(cell.arm.method, []).append(cell)
        self._n_boot, self._seed = n_boot, seed
        self._counts: dict[int, Floats] = {}
        self._points: dict[tuple[str, str, tuple[str, ...]], tuple[Floats, Floats]] = {}
        self._envelopes: dict[tuple[str, str, tuple[str, ...], bool], Envelope] = {}

    def problems(self, *methods: str) -> tuple[str, ...]:
        """The problems that all of the methods were run on, in order."""
        each = [{problem for cell in self.methods[method] for problem in cell.problems} for method in methods]
        return tuple(sorted(set.intersection(*each)))

    def points(self, method: str, axis: str, problems: tuple[str, ...]) -> tuple[Floats, Floats]:
        """Costs and accuracies (percent) of a method's points, each (1 + resamples, points).

        Row 0 is the sample itself; NaN where a point has none of the problems drawn.
        """
        key = (method, axis, problems)
        if key not in self._points:
            counts = self._counts.setdefault(len(problems), draws(len(problems), self._n_boot, self._seed))
            self._points[key] = _table(self.methods[method], axis, problems).resampled(counts)
        return self._points[key]

    def envelope(self, method: str, axis: str, problems: tuple[str, ...], log2: bool) -> Envelope:
        """A method's frontiers over cost, or over log2 of cost: row 0 the sample's, then one row a resample."""
        key = (method, axis, problems, log2)
        if key not in self._envelopes:
            cost, accuracy = self.points(method, axis, problems)
            with np.errstate(invalid="ignore", divide="ignore"):
                self._envelopes[key] = envelope(np.log2(cost) if log2 else cost, accuracy)
        return self._envelopes[key]


def bootstraps(found: Iterable[Cell], n_boot: int = N_BOOT, seed: int = 0) -> dict[tuple[str, str], Bootstrap]:
    """A bootstrap for each model and task, in the order that they come."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.arm.model, cell.arm.task), []).append(cell)
    return {key: Bootstrap(part, n_boot, seed) for key, part in groups.items()}


def draws(problems: int, n_boot: int, seed: int) -> Floats:
    """(1 + n_boot, problems), how often each problem is drawn: row 0 is the sample itself, then one row a resample."""
    drawn = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), size=n_boot)
    return np.vstack([np.ones(problems), drawn])


def reliable(part: Iterable[Cell]) -> list[Cell]:
    """The cells that rest on enough of the problems that any cell of their frontier has; only these may make it.

    Few problems make noisy points, of which the maximum picks the lucky ones, and an interrupted run's are easy ones.
    """
    part = list(part)
    frontiers = [tuple(getattr(cell.arm, name) for name in FRONTIER) for cell in part]
    most: dict[tuple[str, ...], int] = {}
    for cell, each in zip(part, frontiers, strict=True):
        most[each] = max(most.get(each, 0), len(cell.problems))
    return [cell for cell, each in zip(part, frontiers, strict=True) if len(cell.problems) >= COVERAGE * most[each]]


def ends(values: Floats) -> tuple[Floats, Floats]:
    """95 % intervals of the columns of (1 + resamples, m) values, row 0 the sample's own, as the module says.

    Returns:
        Lower and upper ends, each (m,); NaN where fewer than half of the resamples have a value.
    """
    sample, resamples = values[0], values[1:]
    enough = np.isfinite(resamples).mean(axis=0) >= 0.5
    resamples = np.where(enough, resamples, 0.0)
    low, high = np.nanpercentile(resamples, [2.5, 97.5], axis=0)
    bias = np.nan_to_num(np.nanmean(resamples, axis=0) - sample)
    low, high = np.minimum(low, low - 2 * bias), np.maximum(high, high - 2 * bias)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


class _Table(NamedTuple):
    """A method's points before averaging; points a problem is missing from hold 0 there.

    Attributes:
        accuracy: (problems, points), in percent.
        cost: (problems, points).
        present: (problems, points), 1 or 0.
    """

    accuracy: Floats
    cost: Floats
    present: Floats

    def resampled(self, counts: Floats) -> tuple[Floats, Floats]:
        """Costs and accuracies of every point, (resamples, points), for (resamples, problems) counts of problems."""
        with np.errstate(invalid="ignore", divide="ignore"):
            n = counts @ self.present
            return counts @ self.cost / n, counts @ self.accuracy / n


def _table(part: Sequence[Cell], axis: str, problems: Sequence[str]) -> _Table:
    place = {problem: i for i, problem in enumerate(problems)}
    table = _Table(*(np.zeros((len(problems), len(part))) for _ in range(3)))
    for j, cell in enumerate(part):
        mine = [i for i, problem in enumerate(cell.problems) if problem in place]
        rows = [place[cell.problems[i]] for i in mine]
        table.accuracy[rows, j] = 100 * cell.accuracy[mine]
        table.cost[rows, j] = cell.costs[axis][mine]
        table.present[rows, j] = 1
    return table


def band(part: Sequence[Cell], axis: str, at: Floats, n_boot: int = N_BOOT, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % bootstrap band of one method's frontier, interpolated in log2 of cost.

    Args:
        part: Cells of one method on one task.
        axis: Cost axis.
        at: (m,) costs.
        n_boot: Number of resamples.
        seed: Of the resampling.

    Returns:
        Lower and upper ends, each (m,), in percent, neither falling with cost; NaN where fewer than half of the
        resamples have a frontier, and everywhere with fewer than `MIN_PROBLEMS` problems.
    """
    made = Bootstrap(part, n_boot, seed)
    (method,) = made.methods
    return band_of(made, method, axis, at)


def band_of(made: Bootstrap, method: str, axis: str, at: Floats) -> tuple[Floats, Floats]:
    """`band` of one of the bootstrap's methods, on frontiers that it keeps."""
    problems = made.problems(method)
    if len(problems) < MIN_PROBLEMS:
        return np.full(len(at), np.nan), np.full(len(at), np.nan)
    values = evaluate(made.envelope(method, axis, problems, log2=True), np.log2(at))
    low, high = (np.clip(end, 0, 100) for end in ends(values))
    # A frontier never falls, so neither end need be looser than what holds at other costs. It matters where two points
    # cost nearly the same: which of them comes first changes from resample to resample, and with it the line to them.
    order = np.argsort(at)
    low[order] = np.fmax.accumulate(low[order]) + 0 * low[order]  # NaN stays
    high[order] = np.fmin.accumulate(high[order][::-1])[::-1] + 0 * high[order]
    return low, high
