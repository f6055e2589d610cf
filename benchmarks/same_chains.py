"""Counts the chains that two runs share word by word, as on two devices: a row a method, all nominal ratios together.

Usage: python benchmarks/same_chains.py ONE OTHER
Chains are compared where both runs have them. Prints Markdown: how many there are, how many have the same text, the
same verdict, the same text and costs.
"""

import argparse
from collections import Counter
from pathlib import Path

from hyperscale import results
from hyperscale.results.samples import Key, Sample


def chains(folder: Path) -> dict[Key, Sample]:
    """All chains of a run folder, or of a folder of them."""
    return {sample.key: sample for run in results.read(folder) for sample in run.samples}


def main() -> None:
    """Read both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    args = parser.parse_args()
    ones, others = chains(args.one), chains(args.other)
    found: dict[str, Counter[str]] = {}
    for key in ones.keys() & others.keys():
        one, other = ones[key], others[key]
        alike = one.text == other.text
        costs = (one.whole.kv_reads, one.whole.peak_kv) == (other.whole.kv_reads, other.whole.peak_kv)
        found.setdefault(one.method, Counter()).update(
            chains=1, text=alike, verdict=one.whole.correct == other.whole.correct, costs=alike and costs
        )
    print("| method | chains | same text | same verdict | same text and costs |\n|---|---|---|---|---|")
    for name, count in sorted(found.items()):
        print(f"| {name} | {count['chains']} | {count['text']} | {count['verdict']} | {count['costs']} |")
    every = sum(found.values(), Counter())
    print(f"| all | {every['chains']} | {every['text']} | {every['verdict']} | {every['costs']} |")


if __name__ == "__main__":
    main()
