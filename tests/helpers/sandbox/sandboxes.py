"""Runners at a level of the sandbox, for tests that are given levels."""

import contextlib

import pytest

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Limits, Program

# Little CPU time; the clock leaves a busy machine enough for programs that end.
SHORT = Limits(seconds=0.3, wall=3.0, memory=256 << 20)


@contextlib.contextmanager
def runner_at(level, workers):
    """A runner at a level; the test is skipped, with the reason, where the level does not work."""
    if reason := choose.find_fault(level):
        pytest.skip(f"no {level} here: {reason}")
    with contextlib.closing(CodeRunner(sandbox=level, workers=workers)) as runner:
        yield runner


def verdicts_of(grader, source, target):
    """The verdict of a code grader on every test of a target, those after a failure included."""
    return grader.run_suites([(source, grader.suite(target))], slice(None), stop_at_failure=False)[0]


def one(runner, *arguments, **more):
    """One program's outcomes."""
    return runner.run_many([Program(*arguments, **more)])[0]
