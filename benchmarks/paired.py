"""Compares runs with a base run on the same problems, at one chain: accuracy lost, a line a run and method.

Usage: python benchmarks/paired.py BASE_RUN RUN [RUN …] [--length 2048]
Differences in points of accuracy, ± the standard error of their mean over the problems that both runs have, by task and
over all. The first run's method is compared with every method and CR of the others. Prints Markdown.
"""

import argparse
from pathlib import Path

import numpy as np

from hyperscale import results
from hyperscale.results.points import MeasuredPoint


def single(folder: Path, length: int) -> list[MeasuredPoint]:
    """A run's points of one chain at a length."""
    (run,) = results.read(folder)
    return [point for point in run.points() if point.W == 1 and length == point.L]


def less(base: MeasuredPoint, other: MeasuredPoint) -> list[float]:
    """Other minus base on each problem of both, in points."""
    of_base = dict(zip(base.problems, base.accuracy, strict=True))
    pairs = zip(other.problems, other.accuracy, strict=True)
    return [100 * (accuracy - of_base[problem]) for problem, accuracy in pairs if problem in of_base]


def shown(differences: list[float]) -> str:
    """Mean ± standard error."""
    mean, count = np.mean(differences), len(differences)
    return f"{mean:+.2f} ± {np.std(differences, ddof=1) / count**0.5:.2f} ({count})".replace("-", "−")


def main() -> None:
    """Read the runs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="run folder of the base, one method")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--length", type=int, default=2048, help="L")
    args = parser.parse_args()
    base = {point.series.task: point for point in single(args.base, args.length)}
    print(f"| run | method | {' | '.join(base)} | all |\n|{'---|' * (len(base) + 3)}")
    for folder in args.runs:
        arms: dict[str, dict[str, list[float]]] = {}
        for point in single(folder, args.length):
            task = point.series.task
            if task in base:
                arm = arms.setdefault(f"{point.series.method} {point.series.CR:g}x", {})
                arm[task] = less(base[task], point)
        for name, found in arms.items():
            columns = [shown(found[task]) if task in found else "·" for task in base]
            everything = [difference for differences in found.values() for difference in differences]
            print(f"| {folder.name} | {name} | {' | '.join(columns)} | {shown(everything)} |")


if __name__ == "__main__":
    main()
