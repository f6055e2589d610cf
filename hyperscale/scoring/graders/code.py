"""Programs: Python in a fenced block, run on hidden tests; a verdict for each test, compared out here."""

import json
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.output_match import identical_value
from hyperscale.scoring.sandbox.pool import CodeRunner, shared_runner
from hyperscale.scoring.sandbox.program import Kind, Limits, Outcome, Program, Status

# One of a test's outcomes in the sandbox; where that is "ok", "pass" or "wrong".
Verdict = Status | Literal["pass", "wrong"]

_FENCE = re.compile(r"^[ \t]*```[ \t]*(python3?|py)?[ \t]*$", re.MULTILINE | re.IGNORECASE)
_REMEMBERED = 20_000
_TOGETHER = 32  # programs that go to the runner at once: bounds what their unpacked tests take of the memory
_FIRST = 4  # tests that a program must pass before it meets the others


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


class CodeGrader(Grader):
    """The last fenced ``python`` block after the thinking; correct iff ``f`` returns the expected output on every test.

    A target is a list of ``{"input": value, "output": value}``; ``f`` is called with the input as its one argument.
    Types of outputs count: 1, 1.0 and true differ.
    """

    name = "code"
    summary = "function f of the last ```python block after </think>, run on hidden tests"
    limits: Limits | None = None  # of each test; None for the runner's own

    def __init__(self, runner: CodeRunner | None = None) -> None:
        """Use the given runner, or the process's shared one."""
        self._runner = runner
        self._verdicts: dict[Hashable, bool] = {}

    def extract(self, text: str) -> str | None:
        """The program's text, or None."""
        answer = after_thinking(text) or ""
        program, start = None, None
        for fence in _FENCE.finditer(answer):  # one pass, however many blocks are opened and never closed
            if start is None:
                start = fence.end() + 1 if fence.group(1) else None
            elif not fence.group(1):
                program, start = answer[start : fence.start()], None
        return program

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
        if len(self._verdicts) + len(targets) > _REMEMBERED:
            self._verdicts.clear()
        fresh = [key for key in targets if key not in self._verdicts]
        for start in range(0, len(fresh), _TOGETHER):
            batch = fresh[start : start + _TOGETHER]
            suites = {key: self.suite(targets[key]) for key in batch}
            left = batch
            for tests in (slice(0, _FIRST), slice(_FIRST, None)):
                jobs = [(key[0], suites[key]) for key in left]
                passed = [set(verdicts) <= {"pass"} for verdicts in self._run(jobs, tests, stop=True)]
                self._verdicts.update(zip(left, passed, strict=True))
                left = [key for key, ok in zip(left, passed, strict=True) if ok]
        return [self._verdicts[key] for key in keys]

    def verdicts(self, answer: str, target: Any) -> list[Verdict]:
        """The verdict on every test: "pass", "wrong", or why there is no output; raises as `correct` does."""
        return self._run([(answer, self.suite(target))], slice(None), stop=False)[0]

    def suite(self, target: Any) -> Suite:
        """A target's tests.

        Raises:
            TaskError: The target is malformed or has no tests.
        """
        self.identity(target)
        inputs = tuple((test["input"],) for test in target)
        return Suite("functional", "f", inputs, tuple(test["output"] for test in target), identical_value)

    def identity(self, target: Any) -> Hashable:
        """What makes two targets the same; raises TaskError if the target has not the form of one."""
        if not isinstance(target, list) or not target or not all({"input", "output"} <= set(test) for test in target):
            raise TaskError('a target of the code grader is a non-empty list of {"input": ..., "output": ...}')
        return json.dumps(target, sort_keys=True)

    def prepared(self, answer: str) -> str:
        """The source that is run for an answer."""
        return answer

    def _run(self, jobs: Sequence[tuple[str, Suite]], tests: slice, *, stop: bool) -> list[list[Verdict]]:
        runner = self._runner or shared_runner()
        limits = self.limits or runner.limits
        programs = [
            Program(self.prepared(answer), suite.inputs[tests], suite.kind, suite.function, limits, stop)
            for answer, suite in jobs
        ]
        return [
            [
                _verdict(outcome, expected, suite)
                for outcome, expected in zip(outcomes, suite.outputs[tests], strict=True)
            ]
            for outcomes, (_, suite) in zip(runner.run_many(programs), jobs, strict=True)
        ]


def _verdict(outcome: Outcome, expected: Any, suite: Suite) -> Verdict:
    if outcome.status != "ok":
        return outcome.status
    return "pass" if suite.same(outcome.output, expected) else "wrong"
