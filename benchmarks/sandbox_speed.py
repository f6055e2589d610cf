"""Times the sandbox: short tests a second, at every level that works here.

    python benchmarks/sandbox_speed.py [--tests 1000] [--workers N]

Prints a table: level, kind of program, tests per second of the warm pool, and the seconds that a worker takes to start.
"""

import argparse
import time

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.levels import LEVELS
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Program
from hyperscale.scoring.sandbox.worker import SandboxWorker

FUNCTION = "def f(x):\n    return sorted(x)[::-1]\n"
WHOLE = "n = int(input())\nprint(sum(map(int, input().split())) + n)\n"
EACH = 10  # tests a program


def programs(kind: str, tests: int) -> list[Program]:
    """Right programs with ten tests each."""
    if kind == "stdin":
        return [Program(WHOLE, tuple(f"{i}\n1 2 3\n" for i in range(EACH)), kind="stdin")] * (tests // EACH)
    return [Program(FUNCTION, tuple(([3, 1, i],) for i in range(EACH)))] * (tests // EACH)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    print(f"{'level':<8} {'kind':<10} {'workers':>7} {'tests/s':>8} {'start s':>8}")
    for level in LEVELS:
        reason = choose.find_fault(level)
        if reason:
            print(f"{level:<8} {reason}")
            continue
        begin = time.perf_counter()
        SandboxWorker(level).close()
        start = time.perf_counter() - begin
        runner = CodeRunner(sandbox=level, workers=options.workers)
        runner.run_many(programs("functional", EACH * runner.workers * 2))  # warm
        for kind in ("functional", "stdin"):
            jobs = programs(kind, options.tests)
            begin = time.perf_counter()
            outcomes = runner.run_many(jobs)
            seconds = time.perf_counter() - begin
            done = [outcome for found in outcomes for outcome in found]
            assert all(outcome.status == "ok" for outcome in done)
            print(f"{level:<8} {kind:<10} {runner.workers:>7} {len(done) / seconds:>8.0f} {start:>8.2f}")
        runner.close()


if __name__ == "__main__":
    main()
