"""Finds the questions to show beside the chains: of built-in tasks, made anew, and of users' files.

Results hold no questions. Those of gated sets must stand nowhere in plain text, and other data sets would have to be
downloaded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.results.folder import Run
from hyperscale.tasks.datasets import GeneratedProblems
from hyperscale.tasks.own_problems import FileProblems


class Question(NamedTuple):
    """A problem's prompt, the right answer where it is a text, and what graders compare with."""

    prompt: str
    target: str | None
    graded_by: Any = None


ProblemKey = tuple[str, str, str]  # task, problem, hash of its prompt


def find_questions(runs: Sequence[Run]) -> dict[ProblemKey, Question]:
    """The questions of the runs' problems that may be shown, by task, problem and hash of the prompt."""
    limits: dict[str, int] = {}  # of each task: how many of its problems may have been run
    for run in runs:
        for sample in run.samples:
            limits.setdefault(sample.task, 0)
        limit = run.info["config"].get("limit")
        for name in limits:
            limits[name] = max(limits[name], limit) if isinstance(limit, int) else 10**9
    questions: dict[ProblemKey, Question] = {}
    for name, limit in limits.items():
        for doc in _docs(name, limit):
            target = doc.target if isinstance(doc.target, str) else None
            questions[name, doc.id, tasks.prompt_hash(doc.prompt)] = Question(doc.prompt, target, doc.target)
    return questions


def _docs(name: str, limit: int) -> list[tasks.Doc]:
    try:
        task = tasks.load(name)
        # A task of the user's own shows what its file has; a reader of results runs no function of theirs.
        if task.gated or not isinstance(task.origin, GeneratedProblems | FileProblems):
            return []
        return task.docs(limit)
    except TaskError:  # a page without questions is still a page
        return []
