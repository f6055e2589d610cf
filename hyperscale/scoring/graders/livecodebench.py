"""Grades programs for LiveCodeBench: whole programs on standard input, or methods of a class ``Solution``."""

from collections.abc import Hashable
from typing import Any

from hyperscale.scoring.graders import livecodebench_tests
from hyperscale.scoring.graders.base import after_thinking
from hyperscale.scoring.graders.code import CodeGrader, Suite
from hyperscale.scoring.graders.forms.fenced_blocks import find_blocks
from hyperscale.scoring.graders.output_match import same_text, same_value
from hyperscale.scoring.sandbox.program import Limits

# LiveCodeBench gives every program these names: problems are posed as if they were there (`List`, `inf`, `gcd`).
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_PRELUDE = "\n".join(
    [f"from {name} import *" for name in _STARRED]
    + [f"import {name}" for name in _STARRED if name not in ("builtins", "typing")]
    + ["sys.setrecursionlimit(50000)", ""]
)


class LiveCodeBenchGrader(CodeGrader):
    """The last fenced ``python`` block after the thinking, or the last bare one; correct iff it passes every test.

    A target is as `livecodebench_tests.make_target` makes it. Comparison follows LiveCodeBench: standard output line by
    line (`output_match.same_text`), returned values as Python compares them (`output_match.same_value`).
    """

    name = "livecodebench"
    limits = Limits(seconds=6.0, memory=1 << 30)  # 6 s a test are LiveCodeBench's own

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The program's text, or None."""
        blocks = list(find_blocks(after_thinking(text) or ""))
        chosen = [block for block in blocks if block.is_python] or [block for block in blocks if block.is_bare]
        return chosen[-1].content if chosen else None

    def suite(self, target: Any) -> Suite:
        """A target's tests; raises TaskError if they cannot be read."""
        tests = livecodebench_tests.read_tests(target)
        same = same_text if tests.kind == "stdin" else same_value
        return Suite(tests.kind, tests.function or "", tests.inputs, tests.outputs, same)

    def identity(self, target: Any) -> Hashable:
        """The texts the tests are packed in; raises TaskError if there are none."""
        return livecodebench_tests.read_texts(target)

    def program_source(self, answer: str) -> str:
        """The program after the imports that LiveCodeBench gives it.

        It is compiled by itself, as its ``from __future__`` has to stand at its top.
        """
        program = answer.removeprefix("\ufeff")  # a byte order mark
        return f"{_PRELUDE}exec(compile({program!r}, '<solution>', 'exec', dont_inherit=True), globals())\n"
