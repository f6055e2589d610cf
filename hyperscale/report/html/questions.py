"""Questions to show beside the chains: only of built-in tasks, whose problems are made anew; results hold none.

Questions of gated sets must stand nowhere in plain text, and other data sets would have to be downloaded.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.results.folder import Run
from hyperscale.tasks.datasets import GeneratedProblems


class Question(NamedTuple):
    """What was asked, and the right answer where it is a text."""

    prompt: str
    target: str | None


Hashed = tuple[str, str, str]  # task, problem, hash of its prompt


def find(runs: Sequence[Run]) -> dict[Hashed, Question]:
    """The questions of the runs' problems that may be shown, by task, problem and hash of the prompt."""
    asked: dict[str, int] = {}
    for run in runs:
        for sample in run.samples:
            asked.setdefault(sample["task"], 0)
        limit = run.info["config"].get("limit")
        for name in asked:
            asked[name] = max(asked[name], limit) if isinstance(limit, int) else 10**9
    found: dict[Hashed, Question] = {}
    for name, most in asked.items():
        for doc in _docs(name, most):
            target = doc.target if isinstance(doc.target, str) else None
            found[name, doc.id, tasks.prompt_hash(doc.prompt)] = Question(doc.prompt, target)
    return found


def _docs(name: str, most: int) -> list[tasks.Doc]:
    try:
        task = tasks.load(name)
        if task.gated or not isinstance(task.origin, GeneratedProblems):
            return []
        return task.docs(min(most, task.size))
    except TaskError:  # a page without questions is still a page
        return []
