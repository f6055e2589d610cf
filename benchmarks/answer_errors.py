"""Measures how often the answer in words claims what is not so, on simulated samples.

    python benchmarks/answer_errors.py                 # 400 trials a row: some minutes

Problems differ in how likely a chain is right (a beta distribution). The full cache has so many points, the method so
many configurations at rising cost, all of one true accuracy each: the method's lies so many points below. Every point
has chains of its own, which is the worst case for a choice among them. The table has the share of samples in which a
configuration is said to equal the full cache's best (within 5 points), in which the method is said to stay below it,
and in which the interval of the method's best accuracy holds the true one.
"""

import argparse

import numpy as np

from hyperscale.analysis.answers import Verdict, find_answers
from hyperscale.analysis.bootstrap import Bootstrap
from hyperscale.results.points import COSTS, MeasuredPoint, SeriesKey

MEAN = 0.6  # true accuracy of the full cache


def point(method: str, place: int, accuracy: np.ndarray) -> MeasuredPoint:
    """A point of one chain a problem, the dearer the higher its place."""
    names = tuple(f"p{i}" for i in range(len(accuracy)))
    costs = {axis: np.full(len(accuracy), 100.0 * (place + 1)) for axis in COSTS}
    series = SeriesKey("simulated", "model", method, "torch", "task", 1.0)
    return MeasuredPoint(series, 1, 256 * (place + 1), "majority", names, accuracy, costs, 1.0, 1, 0.0, 0.0)


def trial(
    rng: np.random.Generator, problems: int, chains: int, gap: float, base_points: int, points: int, resamples: int
) -> tuple[bool, bool, bool]:
    """Whether one sample's answer says equal, says below, and whether the best's interval holds the truth."""
    easy = rng.beta(MEAN * 1.5, (1 - MEAN) * 1.5, problems)
    hard = easy * (1 - gap / MEAN)
    measured = [point("vanilla", i, rng.binomial(chains, easy) / chains) for i in range(base_points)]
    measured += [point("other", i, rng.binomial(chains, hard) / chains) for i in range(points)]
    (answer,) = find_answers([Bootstrap(measured, resamples)], "kv_reads")
    verdicts = {match.verdict for match in answer.matches}
    interval = next(best.interval for best in answer.bests if best.method == "other")
    return Verdict.EQUAL in verdicts, Verdict.BELOW in verdicts, interval.low <= MEAN - gap <= interval.high


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=400)
    options.add_argument("--resamples", type=int, default=200)
    options.add_argument("--problems", type=int, nargs="+", default=[30, 100, 200])
    arguments = options.parse_args()
    print(
        "| problems | chains | points below | points of the full cache, of the method | equal, % | below, % | held, % |"
    )
    print("|---|---|---|---|---|---|---|")
    for problems in arguments.problems:
        for chains in (1, 4):
            for gap in (0.0, 0.05, 0.1):
                for base_points, points in ((1, 10), (4, 4), (4, 10)):
                    rng = np.random.default_rng([problems, chains, int(100 * gap), base_points, points])
                    results = [
                        trial(rng, problems, chains, gap, base_points, points, arguments.resamples)
                        for _ in range(arguments.trials)
                    ]
                    shares = " | ".join(f"{100 * share:.1f}" for share in np.mean(results, axis=0))
                    print(
                        f"| {problems} | {chains} | {100 * gap:.0f} | {base_points}, {points} | {shares} |", flush=True
                    )


if __name__ == "__main__":
    main()
