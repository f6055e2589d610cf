"""Tells why programs are wrong: the first test that each fails, what was expected and what came of it.

Results hold verdicts, not outputs, so the programs run once more, in the sandbox. That needs their tests, which are
known of the tasks whose questions are shown; those of gated sets must not be published.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.report.html.questions import ProblemKey, Question
from hyperscale.results.folder import Run
from hyperscale.results.samples import Sample
from hyperscale.scoring.graders.code import CodeGrader, FailedTest

MAX_PROGRAMS = 200  # that run once more; a loop without an end takes seconds each
MAX_SHOWN = 400  # characters of an input or output

Failures = Mapping[tuple[ProblemKey, str], Sequence[Any]]  # by problem and program


class Explanation(NamedTuple):
    """What is known of the wrong programs.

    Attributes:
        failures: Of problem and program: [number of the test, how many there are, input, expected, got, status], as
            the page's script reads it. Got is None where the status says why there is no output.
        note: What was left out, for the reader; None for nothing.
    """

    failures: Failures
    note: str | None


UNEXPLAINED = Explanation({}, None)


def explain_failures(runs: Sequence[Run], questions: Mapping[ProblemKey, Question]) -> Explanation:
    """The first failed test of each wrong program of a task whose tests are known.

    Args:
        runs: The runs.
        questions: Problems that may be shown, with their tests.
    """
    graders = {key[0]: grader for key in questions if (grader := _code_grader(key[0]))}
    wrong: dict[tuple[ProblemKey, str], None] = {}
    for run in runs:
        for sample in run.samples:
            key = (sample.task, sample.problem, sample.question_hash)
            if sample.task in graders and key in questions:
                wrong.update(((key, program), None) for program in _wrong_programs(sample))
    chosen = sorted(wrong)[:MAX_PROGRAMS]
    failures: dict[tuple[ProblemKey, str], Sequence[Any]] = {}
    for name, grader in graders.items():
        mine = [each for each in chosen if each[0][0] == name]
        try:
            found = grader.find_failures([(program, questions[key].graded_by) for key, program in mine])
        except TaskError as error:  # no sandbox here; a page without reasons is still a page
            return Explanation({}, f"Why programs are wrong is not told: {error}.")
        failures.update((each, _shown(test)) for each, test in zip(mine, found, strict=True) if test)
    left = len(wrong) - len(chosen)
    return Explanation(failures, f"Wrong programs whose failed test is not told: {left}." if left else None)


def _code_grader(task: str) -> CodeGrader | None:
    grader = tasks.load(task).new_grader()
    return grader if isinstance(grader, CodeGrader) else None


def _wrong_programs(sample: Sample) -> Iterable[str]:
    endings = [end for cut in sample.cuts for end in (cut, cut.forced) if end is not None]
    return (end.answer for end in endings if end.answer is not None and not end.correct)


def _shown(test: FailedTest) -> list[Any]:
    got = None if test.status != "wrong" else _text(test.output)
    return [test.number, test.total, _text(test.input), _text(test.expected), got, test.status]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"
