"""Times the graders: answers a second on one core each, and the worst case of finding a box.

    python benchmarks/grader_speed.py [--programs 200]

Texts are made here: 20,000 characters of thinking and a short answer, as a long chain has. Programs go through the
sandbox that `hyperscale run` would use; each LiveCodeBench program has three tests on standard input.
"""

import argparse
import base64
import json
import os
import pickle
import time
import zlib
from collections.abc import Callable

from hyperscale.results.redaction import redact
from hyperscale.scoring import graders
from hyperscale.scoring.graders import livecodebench_tests
from hyperscale.scoring.graders.integer import last_box
from hyperscale.scoring.sandbox.pool import get_shared_runner

THINKING = "So 12 + 30 = 42, and \\boxed{7} is wrong. " * 500
SORT = "def f(x):\n    return sorted(x)\n"
SUM = "n = int(input())\nprint(sum(map(int, input().split())))\n"


def rate(name: str, count: int, work: Callable[[], object]) -> None:
    """Time one call that does ``count`` things and print the things a second."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(f"{name:<46} {count / seconds:>12,.0f} /s   ({count:,} in {seconds:.2f} s)")


def texts(name: str, answer: str, target: object, count: int = 2000) -> None:
    """Extraction and verdict for texts that differ in their answer."""
    grader = graders.get(name)
    grader.correct("0.25", target)  # starts the process of math-verify
    chains = [f"{THINKING}</think>Hence {answer.replace('N', str(i + 2))}." for i in range(count)]
    rate(
        f"{name}: extract and compare", count, lambda: [grader.correct(grader.extract(t) or "", target) for t in chains]
    )


def programs(count: int) -> None:
    """Programs that all differ, so that no verdict is remembered; the workers are warm."""
    tests = [{"input": [i, 3, 1], "output": sorted([i, 3, 1])} for i in range(3)]
    cases = [{"input": f"2\n{i} 5\n", "output": f"{i + 5}\n", "testtype": "stdin"} for i in range(3)]
    private = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases[1:])))).decode()
    row = {"public_test_cases": json.dumps(cases[:1]), "private_test_cases": private, "metadata": "{}"}
    for name, source, target in (("code", SORT, tests), ("livecodebench", SUM, livecodebench_tests.make_target(row))):
        grader = graders.get(name)
        assert grader.correct(source, target), "the benchmark's own program is wrong"
        pairs = [(f"{source}# {i}\n", target) for i in range(count)]
        rate(f"{name}: tests run ({count} programs)", 3 * count, lambda g=grader, p=pairs: g.correct_many(p))  # type: ignore[misc]


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=200, help="programs a code grader is given")
    count = parser.parse_args().programs
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, sandbox {get_shared_runner().choose_level()}")
    texts("integer", r"\boxed{N}", 42)
    texts("choice", "Answer: B", "B")
    texts("math", r"\boxed{\frac{N}{2}}", r"\frac{1}{2}", 200)
    hostile = "\\boxed{" * 1_000_000
    rate("integer: characters of unclosed boxes", len(hostile), lambda: last_box(hostile))
    question = " ".join(f"word{i}" for i in range(400))
    rate("redaction: characters", len(THINKING), lambda: redact(THINKING, question))
    big = pickle.dumps(json.dumps([{"input": "1 " * 500_000, "output": "1", "testtype": "stdin"}] * 20))
    packed = base64.b64encode(zlib.compress(big)).decode()
    row = {"public_test_cases": "[]", "private_test_cases": packed, "metadata": "{}"}
    rate(
        "livecodebench: bytes of tests unpacked",
        len(big),
        lambda: livecodebench_tests.read_tests(livecodebench_tests.make_target(row)),
    )
    programs(count)


if __name__ == "__main__":
    main()
