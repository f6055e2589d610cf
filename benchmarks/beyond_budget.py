"""Counts right chains that fit in a method's fixed budget, and right chains beyond it, where it has to evict.

Usage: python benchmarks/beyond_budget.py RUN [RUN …]
A chain fits if its whole sequence does; its method has then evicted nothing. Prints Markdown, a row a method and
nominal CR, "right of chains that fit; right of those that do not" by task. Methods with another rule are left out.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from hyperscale import methods, results
from hyperscale.methods.arm import Arm


def main() -> None:
    """Read the runs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    args = parser.parse_args()
    found: dict[Arm, dict[str, list[list[int]]]] = defaultdict(lambda: defaultdict(lambda: [[0, 0], [0, 0]]))
    for folder in args.runs:
        for sample in (sample for run in results.read(folder) for sample in run.samples):
            method = methods.create(sample.method, **sample.params)
            prompt, tokens = sample.prompt_tokens, sample.tokens
            allowed = method.allowance(prompt, tokens, sample.L)
            if allowed is None or method.length_invariant:
                continue
            counts = found[sample.arm][sample.task][prompt + tokens - 1 > allowed]
            counts[0] += sample.whole.correct
            counts[1] += 1
    tasks = sorted({task for arm in found.values() for task in arm})
    print(f"| method | nominal | {' | '.join(tasks)} |\n|{'---|' * (len(tasks) + 2)}")
    order = list(dict.fromkeys(arm.method for arm in found))
    for arm, counts_of in sorted(found.items(), key=lambda pair: (order.index(pair[0].method), pair[0].CR)):
        cells = ["; ".join(f"{right} of {count}" for right, count in counts_of[task]) for task in tasks]
        print(f"| {arm.method} | {arm.CR:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
