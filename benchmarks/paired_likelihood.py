"""Compares methods of `hyperscale loglik` document by document: differences of nats a token with 95 % intervals.

Usage: python benchmarks/paired_likelihood.py FOLDER [FOLDER …] --pairs h2o-tova,rkv-random
The folders hold the documents.csv of runs over the same documents. Prints Markdown, a column a ratio; a method may
name its own (dms@4-h2o@2). What is in bold has an interval without nought. Intervals are bootstrapped over documents.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

_RESAMPLES = 10_000


def difference(nats: dict[tuple[str, float], "pd.Series[float]"], first: str, second: str, ratio: float) -> str:
    """First less second at a ratio, over the documents of both; a dash where one was not measured there."""
    parts = []
    for name in (first, second):
        method, _, own = name.partition("@")
        if (method, float(own or ratio)) not in nats:
            return "–"
        parts.append(nats[method, float(own or ratio)])
    found = (parts[0] - parts[1]).dropna().to_numpy()
    draws = np.random.default_rng(0).integers(0, len(found), (_RESAMPLES, len(found)))
    low, high = np.percentile(found[draws].mean(1), [2.5, 97.5])
    text = f"{found.mean():+.3f} [{low:.3f}, {high:.3f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def main() -> None:
    """Read the documents and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="results of `hyperscale loglik`")
    parser.add_argument("--pairs", required=True, help="first-second, with commas between")
    arguments = parser.parse_args()
    nats: dict[tuple[str, float], pd.Series[float]] = {}
    for folder in arguments.folders:
        for (method, ratio), rows in pd.read_csv(folder / "documents.csv").groupby(["method", "CR"]):
            nats[str(method), float(str(ratio))] = rows.set_index("document")["nats"]
    ratios = sorted({ratio for _, ratio in nats if ratio > 1})
    print("| | " + " | ".join(f"CR {ratio:g}" for ratio in ratios) + " |")
    print("|---" * (len(ratios) + 1) + "|")
    for pair in arguments.pairs.split(","):
        first, _, second = pair.partition("-")
        cells = [difference(nats, first, second, ratio) for ratio in ratios]
        print(f"| {first} less {second} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
