"""Programs: a Python function ``f`` in a fenced block, run on hidden tests."""

import json
import re
from collections.abc import Sequence
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.scoring.base import Grader, after_thinking
from hyperscale.scoring.code_runner import CodeRunner, shared_runner

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_REMEMBERED = 20_000


def _same(output: str | None, expected: Any) -> bool:
    """Whether a returned value, as JSON, is the expected one; types count (1, 1.0 and true differ)."""
    if output is None:
        return False
    try:
        return json.dumps(json.loads(output), sort_keys=True) == json.dumps(expected, sort_keys=True)
    except (ValueError, RecursionError):
        return False


class CodeGrader(Grader):
    """The last fenced ``python`` block after the thinking; correct iff ``f`` returns the expected output on every test.

    A target is a list of ``{"input": value, "output": value}``; ``f`` is called with the input as its one argument.
    Programs run in `CodeRunner`'s child process, which never sees the expected outputs: they are compared here.
    """

    name = "code"
    summary = "function f of the last ```python block after </think>, run on hidden tests"

    def __init__(self, runner: CodeRunner | None = None) -> None:
        """Use the given runner, or the process's shared one."""
        self._runner = runner
        self._verdicts: dict[tuple[str, str], bool] = {}

    def extract(self, text: str) -> str | None:
        """The program's text, or None."""
        answer = after_thinking(text)
        blocks = [] if answer is None else _FENCE.findall(answer)
        return str(blocks[-1]) if blocks else None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the program passes every test of the target.

        Raises:
            TaskError: The target is not a non-empty list of tests.
        """
        return self.correct_many([(answer, target)])[0]

    def correct_many(self, pairs: Sequence[tuple[str, Any]]) -> list[bool]:
        """Verdicts in order; equal programs with equal tests run once."""
        keys = [(answer, _tests(target)) for answer, target in pairs]
        targets = {key: target for key, (_, target) in zip(keys, pairs, strict=True)}
        fresh = [key for key in targets if key not in self._verdicts]
        if len(self._verdicts) + len(fresh) > _REMEMBERED:
            self._verdicts.clear()
            fresh = list(targets)
        runner = self._runner or shared_runner()
        outputs = runner.run([(key[0], [test["input"] for test in targets[key]]) for key in fresh])
        for key, values in zip(fresh, outputs, strict=True):
            expected = [test["output"] for test in targets[key]]
            self._verdicts[key] = all(_same(value, want) for value, want in zip(values, expected, strict=True))
        return [self._verdicts[key] for key in keys]


def _tests(target: Any) -> str:
    if not isinstance(target, list) or not target or not all({"input", "output"} <= set(test) for test in target):
        raise TaskError('a target of the code grader is a non-empty list of {"input": ..., "output": ...}')
    return json.dumps(target, sort_keys=True)
