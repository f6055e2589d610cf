"""Grades programs: Python in a fenced block, run in the sandbox on hidden tests whose outputs stay outside."""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.forms.fenced_blocks import find_blocks
from hyperscale.scoring.graders.output_match import identical_value
from hyperscale.scoring.sandbox.pool import CodeRunner, get_shared_runner
from hyperscale.scoring.sandbox.program import Kind, Limits, Outcome, Program, Status

# Of a test: why the sandbox gives no output; or, with an output, whether it is the expected one.
Verdict = Status | Literal["pass", "wrong"]

_MAX_VERDICTS = 20_000  # that are remembered
_BATCH = 32  # programs that go to the runner at once: bounds the memory of their unpacked tests
_ROOM = 4  # times the size of the expected output may a program write, where that is more than its limit
_FIRST_TESTS = 4  # that a program must pass before it is run on the others


@dataclass(frozen=True)
class Suite:
    """A problem's tests as the runner and the comparison need them.

    Attributes:
        kind: "functional" (a function is called) or "stdin" (the program runs whole).
        function: Name of the function.
        inputs: One a test: a sequence of arguments, or a text.
        outputs: What is expected, one a test; never handed to the runner.
        same: Whether an output is the expected one.
    """

    kind: Kind
    function: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    same: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class FailedTest:
    """The first test that a program failed.

    Attributes:
        number: Which test of its suite, from 1.
        total: Tests of the suite.
        input: What the program was given: the argument, a list of several, or the text on standard input.
        expected: The output that the test expects.
        output: What came of it; None where there is no output.
        status: "wrong", or why there is no output.
    """

    number: int
    total: int
    input: Any
    expected: Any
    output: Any
    status: Verdict


class CodeGrader(Grader):
    """The last fenced ``python`` block after the thinking; correct iff ``f`` returns the expected output on every test.

    A target is a list of ``{"input": value, "output": value}``; ``f`` is called with the input as its one argument.
    Types of outputs count: 1, 1.0 and true differ.
    """

    name = "code"
    compares_values = False
    cue = "\n\n```python\n"
    limits: Limits | None = None  # of each test; None for the runner's own

    def __init__(self, runner: CodeRunner | None = None) -> None:
        """Use the given runner, or the process's shared one."""
        self._runner = runner
        self._verdicts: dict[Hashable, bool] = {}

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The program's text, or None."""
        blocks = [block for block in find_blocks(after_thinking(text) or "") if block.is_python]
        return blocks[-1].content if blocks else None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the program passes every test of the target.

        Raises:
            TaskError: The target is malformed or has no tests.
            SandboxError: Nothing here can keep a program in.
        """
        return self.correct_many([(answer, target)])[0]

    def correct_many(self, pairs: Sequence[tuple[str, Any]]) -> list[bool]:
        """Verdicts in order; equal programs with equal tests run once, and no further than to a failed test."""
        keys = [(answer, self.identity(target)) for answer, target in pairs]
        targets = {key: target for key, (_, target) in zip(keys, pairs, strict=True)}
        if len(self._verdicts) + len(targets) > _MAX_VERDICTS:
            self._verdicts.clear()
        fresh = [key for key in targets if key not in self._verdicts]
        for start in range(0, len(fresh), _BATCH):
            batch = fresh[start : start + _BATCH]
            suites = {key: self.suite(targets[key]) for key in batch}
            # Two rounds: most wrong programs fail one of the first tests, and the rest of a large suite is never sent.
            candidates = batch
            for tests in (slice(0, _FIRST_TESTS), slice(_FIRST_TESTS, None)):
                jobs = [(key[0], suites[key]) for key in candidates]
                successes = [
                    set(verdicts) <= {"pass"} for verdicts in self.run_suites(jobs, tests, stop_at_failure=True)
                ]
                self._verdicts.update(zip(candidates, successes, strict=True))
                candidates = [key for key, success in zip(candidates, successes, strict=True) if success]
        return [self._verdicts[key] for key in keys]

    def find_failures(self, pairs: Sequence[tuple[str, Any]]) -> list[FailedTest | None]:
        """For each (answer, target), the first test that the program fails; None if it passes all of them.

        Programs run anew: verdicts are remembered, outputs are not.

        Raises:
            TaskError: A target is malformed or has no tests.
            SandboxError: Nothing here can keep a program in.
        """
        found: list[FailedTest | None] = []
        for start in range(0, len(pairs), _BATCH):
            jobs = [(answer, self.suite(target)) for answer, target in pairs[start : start + _BATCH]]
            outcomes = self._outcomes(jobs, slice(None), stop_at_failure=True)
            found += [_first_failure(tests, suite) for tests, (_, suite) in zip(outcomes, jobs, strict=True)]
        return found

    def suite(self, target: Any) -> Suite:
        """A target's tests.

        Raises:
            TaskError: The target is malformed or has no tests.
        """
        self.identity(target)  # raises where the target is malformed
        inputs = tuple((test["input"],) for test in target)
        return Suite("functional", "f", inputs, tuple(test["output"] for test in target), identical_value)

    def identity(self, target: Any) -> Hashable:
        """A key that equal targets share; raises TaskError if the target is malformed."""
        if not isinstance(target, list) or not target or not all({"input", "output"} <= set(test) for test in target):
            raise TaskError('a target of the code grader is a non-empty list of {"input": ..., "output": ...}')
        return json.dumps(target, sort_keys=True)

    def program_source(self, answer: str) -> str:
        """The source that is run for an answer."""
        return answer

    def run_suites(
        self, jobs: Sequence[tuple[str, Suite]], tests: slice, *, stop_at_failure: bool
    ) -> list[list[Verdict]]:
        """Run programs on tests of their suites.

        Args:
            jobs: (answer, suite) each.
            tests: Which tests of every suite.
            stop_at_failure: Whether a program is run no further than to its first test without an output.

        Returns:
            For each job, for each of the tests: "pass", "wrong", or why there is no output.

        Raises:
            SandboxError: Nothing here can keep a program in.
        """
        return [
            [_verdict(outcome, output, suite) for outcome, output in zip(outcomes, suite.outputs[tests], strict=True)]
            for outcomes, (_, suite) in zip(
                self._outcomes(jobs, tests, stop_at_failure=stop_at_failure), jobs, strict=True
            )
        ]

    def _outcomes(
        self, jobs: Sequence[tuple[str, Suite]], tests: slice, *, stop_at_failure: bool
    ) -> list[list[Outcome]]:
        """The outcomes that `run_suites` gives the verdicts of."""
        runner = self._runner or get_shared_runner()
        limits = self.limits or runner.limits
        programs = [
            Program(
                self.program_source(answer),
                suite.inputs[tests],
                suite.kind,
                suite.function,
                limits,
                stop_at_failure,
                tuple(_room(output, suite.kind) for output in suite.outputs[tests]),
            )
            for answer, suite in jobs
        ]
        return runner.run_many(programs)


def _first_failure(outcomes: Sequence[Outcome], suite: Suite) -> FailedTest | None:
    for i, (outcome, expected) in enumerate(zip(outcomes, suite.outputs, strict=True)):
        verdict = _verdict(outcome, expected, suite)
        if verdict != "pass":
            given = suite.inputs[i]
            argument = given[0] if suite.kind == "functional" and len(given) == 1 else given
            return FailedTest(i + 1, len(suite.outputs), argument, expected, outcome.output, verdict)
    return None


def _room(expected: Any, kind: Kind) -> int:
    """Bytes that a program may write where this is expected: the same numbers and lines may be written at length."""
    return _ROOM * len(expected.encode("utf-8", "surrogatepass") if kind == "stdin" else json.dumps(expected))


def _verdict(outcome: Outcome, expected: Any, suite: Suite) -> Verdict:
    if outcome.status != "ok":
        return outcome.status
    return "pass" if suite.same(outcome.output, expected) else "wrong"
