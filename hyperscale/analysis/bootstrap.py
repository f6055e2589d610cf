"""Resamples problems, makes points and frontiers anew in every resample, and gives the 95 % intervals of margins.

Problems are drawn with replacement, as many as there are; the drawn problems give new accuracies and costs of every
point, and these new frontiers. What differs from resample to resample is the noise of "which problems were asked".
Margins and bands ask for the same frontiers again and again (a method stands in several margins, and has a band), so a
`Bootstrap` keeps them, and all frontiers on the same problems see the same draws: comparisons are paired.

The interval. A maximum over noisy points is biased upwards, and more so in resamples, which add noise to noise. So the
95 % percentile interval of the resamples is extended, on the side to which the bias points, by twice the bootstrap's
estimate of that bias (the mean of the resamples less the sample's own value). See `confidence_intervals`.

Why not `scipy.stats.bootstrap`: it resamples for one statistic at a time. Here one set of draws is shared by every
method, axis and scale; a frontier is computed once a draw and used in many margins and bands.

Why not BCa, which corrects for bias too: it reads the bias from the share of resamples below the sample's own value and
the skewness from leaving out one problem at a time, as for a smooth statistic; a maximum is none. Against an upward
bias it moves both ends down, where ours only extends the lower one, and so it loses truths above them.

How far to trust them (``python benchmarks/interval_coverage.py``: simulated runs with known margins, two or three times
the points against one's, four or eight chains a problem, 200 trials each; results/measurements/intervals.md):

| problems | ours covers | percentiles alone | BCa | margin's bias, in points |
|---|---|---|---|---|
| 10 | 88.5 to 93 % | 81 to 91 % | 85.5 to 91.5 % | +1 to +6 |
| 30 | 94 to 96 % | 89.5 to 95.5 % | 91.5 to 93.5 % | -1 to +2 |
| 60 | 93.5 to 97 % | 90.5 to 97 % | 90 to 95.5 % | -1 to +2 |
| 120 | 92.5 to 97 % | 89 to 95 % | 89 to 95 % | -1 to +1 |

Where frontiers rise by luck alone, a margin is too high for the method with more points, and the truth, where missed,
lies below the interval. More problems help; more points do not.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.frontier import Frontiers, drop_sparse_points, evaluate, find_frontiers
from hyperscale.results.intervals import MIN_PROBLEMS, score_interval
from hyperscale.results.points import MeasuredPoint
from hyperscale.utils.sorting import natural_order

Floats = NDArray[np.float64]
N_BOOT = 1000


class Bootstrap:
    """Frontiers of one task's points over resampled problems.

    Args:
        points: Of one task and model; those of too few problems are left out.
        n_boot: Number of resamples.
        seed: Of the resampling.

    Attributes:
        points: By method.
    """

    def __init__(self, points: Iterable[MeasuredPoint], n_boot: int = N_BOOT, seed: int = 0) -> None:
        self.points: dict[str, list[MeasuredPoint]] = {}
        for point in drop_sparse_points(points):
            self.points.setdefault(point.series.method, []).append(point)
        self._n_boot, self._seed = n_boot, seed
        # Everything below is kept by what it depends on; draws depend on the number of problems alone.
        self._draws: dict[int, Floats] = {}
        self._means: dict[tuple[str, str, tuple[str, ...]], tuple[Floats, Floats]] = {}
        self._frontiers: dict[tuple[str, str, tuple[str, ...], bool], Frontiers] = {}

    def common_problems(self, *methods: str) -> tuple[str, ...]:
        """The problems that all of the methods were run on, in order."""
        # A method's points may rest on unlike problems; it has a problem if any of its points does.
        problems = [{problem for point in self.points[method] for problem in point.problems} for method in methods]
        return tuple(sorted(set.intersection(*problems)))

    def resample_points(self, method: str, axis: str, problems: tuple[str, ...]) -> tuple[Floats, Floats]:
        """Costs and accuracies (percent) of a method's points, each (1 + resamples, points).

        Row 0 is the sample itself; NaN where a point has none of the problems drawn.
        """
        key = (method, axis, problems)
        if key not in self._means:
            draws = self._draws.setdefault(len(problems), draw_problems(len(problems), self._n_boot, self._seed))
            self._means[key] = _tabulate(self.points[method], axis, problems).means(draws)
        return self._means[key]

    def resample_frontiers(self, method: str, axis: str, problems: tuple[str, ...], log2: bool) -> Frontiers:
        """A method's frontiers over cost, or over log2 of cost: row 0 the sample's, then one row a resample."""
        key = (method, axis, problems, log2)
        if key not in self._frontiers:
            cost, accuracy = self.resample_points(method, axis, problems)
            with np.errstate(invalid="ignore", divide="ignore"):  # log2 of NaN, and of 0: a point that reads nothing
                self._frontiers[key] = find_frontiers(np.log2(cost) if log2 else cost, accuracy)
        return self._frontiers[key]

    def confidence_band(self, method: str, axis: str, at: Floats) -> tuple[Floats, Floats]:
        """95 % bootstrap band of a method's frontier in steps: of the best accuracy at or under each cost.

        Args:
            method: One of the methods.
            axis: Cost axis.
            at: (m,) costs.

        Returns:
            Lower and upper ends, each (m,), in percent, neither falling with cost; NaN where fewer than half of the
            resamples have a frontier, and everywhere with fewer than `MIN_PROBLEMS` problems.
        """
        problems = self.common_problems(method)
        if len(problems) < MIN_PROBLEMS:
            return np.full(len(at), np.nan), np.full(len(at), np.nan)
        values = evaluate(self.resample_frontiers(method, axis, problems, log2=True), np.log2(at), steps=True)
        low, high = (np.clip(end, 0, 100) for end in confidence_intervals(values))
        # Where every resample has the same accuracy, as where all is right, the resamples tell nothing.
        for i in np.flatnonzero(low == high):
            low[i], high[i] = (100 * end for end in score_interval(low[i] / 100, len(problems)))
        # A frontier never falls, so neither end need be looser than what holds at other costs. It matters where two
        # points cost nearly the same: which of them comes first changes from resample to resample.
        order = np.argsort(at)
        low[order] = np.fmax.accumulate(low[order]) + 0 * low[order]  # NaN stays
        high[order] = np.fmin.accumulate(high[order][::-1])[::-1] + 0 * high[order]
        return low, high


def make_bootstraps(
    points: Iterable[MeasuredPoint], n_boot: int = N_BOOT, seed: int = 0
) -> dict[tuple[str, str], Bootstrap]:
    """A bootstrap for each model, as they come, and task, by name: a context of 512 tokens before one of 1,024."""
    groups: dict[tuple[str, str], list[MeasuredPoint]] = {}
    for point in points:
        groups.setdefault((point.series.model, point.series.task), []).append(point)
    models = list(dict.fromkeys(model for model, _ in groups))
    in_order = sorted(groups.items(), key=lambda item: (models.index(item[0][0]), natural_order(item[0][1])))
    return {key: Bootstrap(group, n_boot, seed) for key, group in in_order}


def draw_problems(problems: int, n_boot: int, seed: int) -> Floats:
    """(1 + n_boot, problems), how often each problem is drawn: row 0 is the sample itself, then one row a resample."""
    counts = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), size=n_boot)
    return np.vstack([np.ones(problems), counts])


def confidence_intervals(values: Floats) -> tuple[Floats, Floats]:
    """95 % intervals of the columns of (1 + resamples, m) values, row 0 the sample's own.

    With b = mean of the resamples - sample's own value, the interval runs from min(p2.5, p2.5 - 2b) to
    max(p97.5, p97.5 - 2b): percentiles, extended against the bias. Twice, because the resamples lie about b above the
    sample, and the sample about b above the truth.

    Returns:
        Lower and upper ends, each (m,); NaN where fewer than half of the resamples have a value.
    """
    sample, resamples = values[0], values[1:]
    enough = np.isfinite(resamples).mean(axis=0) >= 0.5
    resamples = np.where(enough, resamples, 0.0)  # of the columns without an interval; it keeps numpy from warning
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

    def means(self, draws: Floats) -> tuple[Floats, Floats]:
        """Costs and accuracies of every point, (resamples, points), for (resamples, problems) counts of problems."""
        # A product with the counts sums over the drawn problems, each as often as it was drawn. A point may have none
        # of them: 0 / 0, a NaN that `find_frontiers` takes for no point.
        with np.errstate(invalid="ignore", divide="ignore"):
            n = draws @ self.present
            return draws @ self.cost / n, draws @ self.accuracy / n


def _tabulate(points: Sequence[MeasuredPoint], axis: str, problems: Sequence[str]) -> _Table:
    row_of = {problem: i for i, problem in enumerate(problems)}
    table = _Table(*(np.zeros((len(problems), len(points))) for _ in range(3)))
    for j, point in enumerate(points):
        places = [i for i, problem in enumerate(point.problems) if problem in row_of]
        rows = [row_of[point.problems[i]] for i in places]
        table.accuracy[rows, j] = 100 * point.accuracy[places]
        table.cost[rows, j] = point.costs[axis][places]
        table.present[rows, j] = 1
    return table
