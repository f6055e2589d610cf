"""Measures how often the 95 % intervals of accuracies hold the true one, on simulated problems.

    python benchmarks/accuracy_coverage.py                 # 4,000 trials a row: a minute

Problems differ in how likely a chain is right: a beta distribution with the mean that the row names, narrow (problems
are alike), even, or with most problems at one end. Each has so many chains; its accuracy is their mean. The table has
for our interval, for mean ± 1.96 standard errors, and for Wilson's with one verdict a problem: the share of trials that
hold the truth, and the mean width in points.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hyperscale.results.intervals import wilson_interval

Floats = NDArray[np.float64]
SPREADS = {"alike": 200.0, "even": 2.0, "at the ends": 0.2}  # a + b of the beta distribution
MEANS = (0.02, 0.1, 0.5, 0.9, 0.98, 0.995)
Z = 1.959964


def normal(accuracy: Floats) -> tuple[float, float]:
    """Mean ± 1.96 standard errors."""
    half = Z * accuracy.std(ddof=1) / np.sqrt(len(accuracy))
    return float(accuracy.mean() - half), float(accuracy.mean() + half)


def unclustered(accuracy: Floats) -> tuple[float, float]:
    """Wilson's interval with one verdict a problem."""
    n, p = len(accuracy), float(accuracy.mean())
    middle, half = (p + Z**2 / 2 / n) / (1 + Z**2 / n), Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / 4 / n**2)
    return float(middle - half), float(middle + half)


def coverage(
    make: Callable[[Floats], tuple[float, float]], mean: float, spread: float, problems: int, chains: int, trials: int
) -> tuple[float, float]:
    """Share of trials whose interval holds the truth, and the mean width."""
    rng = np.random.default_rng([problems, chains, int(1000 * mean), int(10 * spread)])
    holds, width = 0, 0.0
    for _ in range(trials):
        chance = rng.beta(mean * spread, (1 - mean) * spread, problems)
        low, high = make(rng.binomial(chains, chance) / chains)
        holds += low <= mean <= high
        width += high - low
    return holds / trials, 100 * width / trials


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=4000)
    options.add_argument("--problems", type=int, nargs="+", default=[10, 30, 100])
    arguments = options.parse_args()
    print("| problems | chains | difficulty | accuracy | ours | ± 1.96 se | Wilson, unclustered |")
    print("|---|---|---|---|---|---|---|")
    for problems in arguments.problems:
        for chains in (1, 8):
            for name, spread in SPREADS.items():
                for mean in MEANS:
                    cells = [
                        "{:.1%} ({:.1f})".format(*coverage(make, mean, spread, problems, chains, arguments.trials))
                        for make in (wilson_interval, normal, unclustered)
                    ]
                    print(f"| {problems} | {chains} | {name} | {mean:.1%} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
