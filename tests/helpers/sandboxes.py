"""Runners at a level of the sandbox, for tests that are given levels."""

import contextlib

import pytest

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Limits, Program

LEVELS = ["bwrap", "unshare", "guard", "none"]
SHORT = Limits(seconds=0.3, wall=0.6, memory=256 << 20)


@contextlib.contextmanager
def runner_at(level, workers):
    """A runner at a level; the test is skipped, with the reason, where the level does not work."""
    if reason := choose.broken(level):
        pytest.skip(f"no {level} here: {reason}")
    with contextlib.closing(CodeRunner(sandbox=level, workers=workers)) as runner:
        yield runner


def one(runner, *arguments, **more):
    """One program's outcomes."""
    return runner.run_many([Program(*arguments, **more)])[0]
