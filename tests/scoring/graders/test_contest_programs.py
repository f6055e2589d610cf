"""Programs as they are written for contests: each of them solves the problem, and must be graded right."""

import contextlib
import json
from pathlib import Path

import pytest

from hyperscale.scoring.graders.livecodebench import LiveCodeBenchGrader
from hyperscale.scoring.sandbox.pool import CodeRunner

SOLUTION = "n = int(input())\nprint(sum(map(int, input().split())))\n"


def read_programs():
    """The programs of the file, where a comment stands for the solution."""
    text = Path(__file__).with_name("contest_programs.txt").read_text("utf-8").replace("# SOLUTION\n", SOLUTION)
    sections = [section.partition("\n") for section in text.split("=== ")[1:]]
    return {name: program for name, _, program in sections}


PROGRAMS = {
    **read_programs(),
    "plain": SOLUTION,
    "byte order mark": "\ufeff" + SOLUTION,
    "carriage returns": SOLUTION.replace("\n", "\r\n"),
    "carriage return in a string": 's = """a\r\nb"""\r\n' + SOLUTION,
}


def target(text, expected, function=None):
    """A problem with one test."""
    case = {"input": text, "output": expected, "testtype": "functional" if function else "stdin"}
    metadata = json.dumps({"func_name": function} if function else {})
    return {"public_test_cases": json.dumps([case]), "private_test_cases": "[]", "metadata": metadata}


@pytest.fixture(scope="module")
def grader():
    with contextlib.closing(CodeRunner(workers=2)) as runner:
        yield LiveCodeBenchGrader(runner)


def verdicts(grader, jobs):
    suites = [(program, grader.suite(problem)) for program, problem in jobs]
    return [one[0] for one in grader.run_suites(suites, slice(None), stop_at_failure=False)]


@pytest.fixture(scope="module")
def verdict_of(grader):
    problem = target("3\n1 2 3\n", "6\n")
    return dict(zip(PROGRAMS, verdicts(grader, [(program, problem) for program in PROGRAMS.values()]), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_usual_forms_of_programs_work(name, verdict_of):
    assert verdict_of[name] == "pass"


def test_output_may_be_as_large_as_the_expected_one(grader):
    lines = "\n".join(map(str, range(200_000)))  # 1.3 MB
    values = json.dumps(list(range(300_000)))
    program = "for i in range(int(input())): print(i)"
    function = "class Solution:\n    def f(self, n): return list(range(n))"
    jobs = [
        (program, target("200000", lines)),
        (program.replace("print(i)", "print(f'{i:.6f}')"), target("200000", lines)),
        (function, target("300000", values, "f")),
        (program, target("200000", "1")),
        (program.replace("print(i)", "print('x' * 100)"), target("200000", lines)),
    ]
    assert verdicts(grader, jobs) == ["pass", "pass", "pass", "output", "output"]


def test_integers_of_fifty_thousand_digits(grader):
    digits = "9" * 50_000
    identity = "class Solution:\n    def f(self, n): return n"
    jobs = [
        ("print(int(input()))", target(digits, digits)),
        ("print(10 ** int(input()))", target("49999", "1" + "0" * 49_999)),
        ("print(10 ** int(input()))", target("50000", "1" + "0" * 50_000)),
        (identity, target(digits, digits, "f")),
        (identity, target(f"[{digits}]", f"[-{digits}]", "f")),
    ]
    assert verdicts(grader, jobs) == ["pass", "pass", "error", "pass", "wrong"]


def test_a_program_that_is_wrong_stays_wrong(grader):
    problem = target("3\n1 2 3\n", "6\n")
    programs = [
        "print(6)\nraise ValueError",
        "sys.stdout.close()",
        "print(6)\nimport os\nos._exit(1)",
        "print(6)\nos.abort()",
        "from __future__ import braces\nprint(6)",
        "print(7)\nfrom __future__ import annotations",
        "sys.stdout.close()\nprint(6)",
        "import threading\nthreading.stack_size(5)\nprint(6)",
    ]
    assert "pass" not in verdicts(grader, [(program, problem) for program in programs])
