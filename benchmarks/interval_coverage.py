"""Measures the coverage of the 95 % intervals of margins, on simulated runs whose margins are known.

    python benchmarks/interval_coverage.py                             # every setting, 200 trials each: 5 minutes
    python benchmarks/interval_coverage.py --trials 40 --problems 30   # a quick look

A trial draws problems of unlike difficulty, lets two methods think about them in chains that are cut at several L, and
makes the points and the margin with the code of `hyperscale.analysis`. One method has one CR, the other two or three,
so that it has more points to be lucky with. The true margin is that of the same points over 200,000 problems, with
accuracies in expectation over chains. Two kinds of tasks:

- rising: longer and more chains solve more problems (pass@W), so most frontier points are ahead by far;
- flat: nearly every chain ends early and more chains do not help (mean@k), so a frontier rises by luck alone.

Three intervals are made of the same resamples: ours (`confidence_intervals`), plain percentiles, and BCa (Efron 1987).
The table has, for each, the share of trials whose interval holds the truth (in brackets: truth below / above it); the
margin's bias in points; the mean widths of our interval and of BCa's.
"""

import argparse
import itertools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperscale.analysis.bootstrap import Bootstrap, confidence_intervals
from hyperscale.analysis.frontier import find_frontiers, mean_gap
from hyperscale.results.points import MeasuredPoint, SeriesKey
from hyperscale.scoring.voting.subsets import pass_at_k

Floats = NDArray[np.float64]
LENGTHS = (512, 1024, 2048, 4096)
POPULATION = 200_000  # problems that stand for all there are
NORMAL = NormalDist()


class Method(NamedTuple):
    """A simulated method: its compression ratios, and how much of a chain's success it keeps."""

    name: str
    crs: tuple[int, ...]
    skill: float


class Problems(NamedTuple):
    """Problems as (n,) arrays: log2 of the typical length of a chain, and the chance that a finished chain is right."""

    log2_length: Floats
    chance: Floats


def draw_problems(rng: np.random.Generator, n: int, flat: bool) -> Problems:
    """Harder problems need longer chains and are less often solved."""
    difficulty = rng.random(n)
    return Problems((7 + 2 * difficulty) if flat else (8 + 5 * difficulty), 0.95 - 0.7 * difficulty)


def draw_chains(
    rng: np.random.Generator, problems: Problems, method: Method, cr: int, chains: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """(problems, chains): length of every chain if it is not cut, and whether its answer is right."""
    shape = (len(problems.chance), chains)
    length = 2 ** (problems.log2_length[:, None] + 0.6 * rng.standard_normal(shape))
    return length, rng.random(shape) < (problems.chance * success(method, cr))[:, None]


def success(method: Method, cr: int) -> float:
    """The share of right chains that a method keeps at a CR."""
    return method.skill * (1 - 0.01 * (cr - 1))


def reads(length: Floats, limit: int, cr: int) -> Floats:
    """Entries that a chain reads, cut at a limit: half the square of its length, less by the CR."""
    return np.minimum(length, limit) ** 2 / (2 * cr)


def simulate_points(
    rng: np.random.Generator, problems: Problems, method: Method, chains: int, widths: tuple[int, ...], flat: bool
) -> list[MeasuredPoint]:
    """A method's points as a run would give them."""
    names = tuple(f"p{i:03}" for i in range(len(problems.chance)))
    points = []
    for cr in method.crs:
        length, right = draw_chains(rng, problems, method, cr, chains)
        for limit in LENGTHS:
            successes = (right & (length <= limit)).sum(axis=1)
            for width in widths:
                accuracy = (
                    successes / chains if flat else np.array([pass_at_k(chains, int(c), width) for c in successes])
                )
                costs = {"kv_reads": width * reads(length, limit, cr).mean(axis=1)}
                series = SeriesKey("r", "m", method.name, "torch", "t", float(cr))
                points.append(
                    MeasuredPoint(series, width, limit, "pass@k", names, accuracy, costs, float(cr), 1, 0.0, 0.0)
                )
    return points


def true_margin(methods: tuple[Method, Method], widths: tuple[int, ...], flat: bool) -> float:
    """The margin on the log2 axis over all problems there are."""
    rng = np.random.default_rng(0)
    problems = draw_problems(rng, POPULATION, flat)
    frontiers = []
    for method in methods:
        costs, accuracies = [], []
        for cr in method.crs:
            length, _ = draw_chains(rng, problems, method, cr, 1)
            for limit in LENGTHS:
                z = (math.log2(limit) - problems.log2_length) / 0.6
                finished = np.interp(z, GRID, NORMAL_CDF)
                solved = problems.chance * success(method, cr) * finished
                cost = reads(length, limit, cr).mean()
                costs += [width * cost for width in widths]
                accuracies += [100 * (1 - (1 - solved) ** (1 if flat else width)).mean() for width in widths]
        frontiers.append(find_frontiers(np.log2(costs), np.array(accuracies)))
    gap, _, _ = mean_gap(*frontiers)
    return float(gap)


GRID = np.linspace(-12, 12, 4801)
NORMAL_CDF = np.array([NORMAL.cdf(z) for z in GRID])


def log2_margins(points: list[MeasuredPoint], methods: tuple[Method, Method], seed: int) -> tuple[Floats, Floats]:
    """The margin of the sample and of each resample, and the margins that leave out one problem each."""
    bootstrap = Bootstrap(points, seed=seed)
    problems = bootstrap.common_problems(*(method.name for method in methods))
    resamples, _, _ = mean_gap(
        *(bootstrap.resample_frontiers(method.name, "kv_reads", problems, log2=True) for method in methods)
    )
    n = len(problems)
    draws = 1 - np.eye(n)  # as the bootstrap's counts of problems, but each row leaves out one
    frontiers = []
    for method in methods:
        part = bootstrap.points[method.name]
        accuracy, cost = (
            np.array(v).T for v in ([100 * p.accuracy for p in part], [p.costs["kv_reads"] for p in part])
        )
        frontiers.append(find_frontiers(np.log2(draws @ cost / (n - 1)), draws @ accuracy / (n - 1)))
    jackknife, _, _ = mean_gap(*frontiers)
    return resamples, jackknife


def bca(resamples: Floats, jackknife: Floats) -> tuple[float, float]:
    """The bias-corrected and accelerated interval (Efron 1987, Better bootstrap confidence intervals)."""
    sample, resamples = resamples[0], resamples[1:]
    resamples = resamples[np.isfinite(resamples)]  # frontiers of few problems need not meet
    below = np.clip((resamples < sample).mean(), 1 / len(resamples), 1 - 1 / len(resamples))
    z0 = NORMAL.inv_cdf(float(below))
    deviations = jackknife.mean() - jackknife
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    ends = []
    for level in (0.025, 0.975):
        z = z0 + NORMAL.inv_cdf(level)
        ends.append(float(np.percentile(resamples, 100 * NORMAL.cdf(z0 + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


def measure(problems: int, chains: int, crs: tuple[int, ...], flat: bool, trials: int) -> str:
    """One row of the table."""
    widths = tuple(1 << k for k in range(4))[: chains.bit_length()]
    methods = (Method("many", crs, 1.0), Method("few", (1,), 0.9))
    truth = true_margin(methods, widths, flat)
    misses = {name: np.zeros(2) for name in ("ours", "percentile", "BCa")}  # truth below, truth above
    errors, lengths = [], []
    for trial in range(trials):
        rng = np.random.default_rng([trial, problems, chains, len(crs)])
        task = draw_problems(rng, problems, flat)
        points = [point for method in methods for point in simulate_points(rng, task, method, chains, widths, flat)]
        resamples, jackknife = log2_margins(points, methods, trial)
        intervals = {
            "ours": tuple(float(end[0]) for end in confidence_intervals(resamples[:, None])),
            "percentile": tuple(np.nanpercentile(resamples[1:], [2.5, 97.5])),
            "BCa": bca(resamples, jackknife),
        }
        for name, (low, high) in intervals.items():
            misses[name] += (truth < low, truth > high)
        errors.append(resamples[0] - truth)
        lengths.append([intervals[name][1] - intervals[name][0] for name in ("ours", "BCa")])
    shares = "".join(
        f"{1 - counts.sum() / trials:>9.1%} ({counts[0] / trials:>5.1%}/{counts[1] / trials:>5.1%})"
        for counts in misses.values()
    )
    kind = "flat" if flat else "rising"
    sizes = f"{4 * len(crs) * len(widths):>4} v {4 * len(widths):<3}"
    size = "/".join(f"{value:.1f}" for value in np.mean(lengths, axis=0))
    bias = np.mean(errors)
    return f"{kind:>6} {problems:>8} {chains:>6} {sizes} {truth:>6.1f} {bias:>+6.1f} {shares}  {size:>9}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--problems", type=int, nargs="+", default=[10, 30, 60, 120])
    options = parser.parse_args()
    print("coverage (truth below / above the interval), log2 axis of KV reads")
    heads = "".join(f"{name:>24}" for name in ("ours", "percentile", "BCa"))
    print(f"{'task':>6} {'problems':>8} {'chains':>6} {'points':>8} {'truth':>6} {'bias':>6} {heads}  {'widths':>9}")
    for flat, problems, chains in itertools.product((False, True), options.problems, (4, 8)):
        for crs in ((1, 2), (1, 2, 4)) if flat else ((4, 8), (2, 4, 8)):
            print(measure(problems, chains, crs, flat, options.trials), flush=True)


if __name__ == "__main__":
    main()
