"""Makes the problems of a context task: questions in texts that fill a prompt up to its length."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

from hyperscale.errors import TaskError
from hyperscale.tasks.context.fitting import find_largest
from hyperscale.tasks.context.haystacks import KINDS as HAYSTACKS
from hyperscale.tasks.context.haystacks import PROSE, sentences_of
from hyperscale.tasks.context.kinds import KINDS, Kind, Question
from hyperscale.tasks.row_formats import ProblemRow

Measure = Callable[[Mapping[str, str]], int]
"""Tokens of the whole prompt of a problem with these fields."""

_SPREAD = 10  # depths that problems take turns in
_MAX_THREADS = 8


@dataclass(frozen=True)
class ContextProblems:
    """Problems with prompts of an exact length, after RULER (arXiv 2404.06654).

    A problem's question and what is hidden depend on the task, the seed and its number alone: it asks the same at
    every length, in every tokenizer and haystack.

    Attributes:
        kind: Name of the kind (`kinds.KINDS`).
        size: Number of problems.
        context: Tokens of a prompt at most, in the model's own tokenizer, with its chat template.
        questions: The kind with its parameters.
        haystack: "prose" or "filler".
        depth: Where the first thing asked about stands, from 0 to 1; None for problems to take turns in ten depths.
        seed: Another seed gives other problems.
    """

    kind: str
    size: int
    context: int
    questions: Kind
    haystack: str = PROSE
    depth: float | None = None
    seed: int = 0

    @classmethod
    def of_kind(cls, kind: str, size: int, context: int) -> "ContextProblems":
        """The problems of a kind with its usual parameters."""
        return cls(kind, size, context, KINDS[kind])

    def rows(self, limit: int | None, data: str | None, task: str, measure: Measure | None = None) -> list[ProblemRow]:
        """The first ``limit`` problems.

        Args:
            limit: Number of problems; all if None.
            data: A text file or a folder of them, whose sentences are the haystack.
            task: The task's name, for messages.
            measure: Tells how long a prompt is.

        Raises:
            TaskError: Nothing tells how long a prompt is, the length has no room for the question, or the data cannot
                be read or are given to problems that take none.
        """
        if measure is None:
            raise TaskError(f"{task} makes prompts of an exact length, which needs a model's tokenizer: name a model")
        self.check_data(data, task)
        sentences = sentences_of(self.haystack, data)

        def make(number: int) -> ProblemRow:
            depth = self.depth if self.depth is not None else (number % _SPREAD + 0.5) / _SPREAD
            question = self.questions.draw(f"{self.kind}-{self.seed}-{number}", depth, sentences)
            fields = {**question.fields, "text": self._fit(question, measure, task)}
            return ProblemRow(f"{self.kind}-{self.seed}-{number}", fields, list(question.target))

        size = self.size if limit is None else min(limit, self.size)
        # The time goes into tokenising, which needs no lock of Python's. The first problem is made alone: a tokenizer
        # may have settings of its own to leave behind at its first call.
        first = [make(number) for number in range(min(size, 1))]
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            return [*first, *pool.map(make, range(1, size))]

    def check_data(self, data: str | None, task: str) -> None:
        """Refuse a text for problems that have no haystack, or another one.

        Raises:
            TaskError: They have none, or a haystack was asked for.
        """
        if data and not self.questions.has_haystack:
            raise TaskError(f"{task} is a list of words and hides nothing in a text: leave --data {task}=… out")
        if data and self.haystack != PROSE:
            raise TaskError(
                f"{task}: haystack={self.haystack} is made, and --data {task}=… is a text of your own: leave one out"
            )

    def _fit(self, question: Question, measure: Measure, task: str) -> str:
        """The longest text of a question whose prompt is not too long."""

        def count(amount: int) -> int:
            tokens = measure({**question.fields, "text": question.text(amount)})
            # A sentence, or what is hidden, is a token at least; text that never makes any would be added without end.
            if question.most is None and tokens <= self.context < amount // 4:
                raise TaskError(
                    f"{task}: {amount:,} sentences make a prompt of {tokens:,} tokens: the model's tokenizer does not "
                    "read them; look at its files (tokenizer.json), or hide it in another text with --data"
                )
            return tokens

        least = count(0)
        if least > self.context:
            fewer = f", or fewer words with --task-param {task}.common_times=N and {task}.rare_times=N"
            smaller = fewer if question.most is not None else ""
            raise TaskError(
                f"{task} needs prompts of at least {least:,} tokens with this model's tokenizer and template: ask for "
                f"more with --context{smaller}"
            )
        amount = find_largest(count, self.context, most=question.most)
        words = question.padding(amount)
        if not words:
            return question.text(amount)
        added = find_largest(
            lambda extra: measure({**question.fields, "text": question.padded(amount, extra)}),
            self.context,
            most=words,
        )
        return question.padded(amount, added)

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """The same with other parameters.

        Raises:
            TaskError: The task has no such parameter, or a value makes no sense.
        """
        values = dict(values)
        shared = {name: values.pop(name) for name in self.questions.shared if name in values}
        changes: dict[str, Any] = {"questions": self.questions.with_parameters(values, task)}
        if "haystack" in shared:
            if shared["haystack"] not in HAYSTACKS:
                raise TaskError(
                    f"haystack of {task} is {' or '.join(HAYSTACKS)}, not {shared['haystack']!r}; a text of your own "
                    f"is given with --data {task}=FILE"
                )
            changes["haystack"] = shared["haystack"]
        if "depth" in shared:
            changes["depth"] = _read_depth(shared["depth"], task)
        for name, field in (("seed", "seed"), ("problems", "size")):
            if name in shared:
                if not str(shared[name]).isdecimal() or (name == "problems" and int(shared[name]) < 1):
                    raise TaskError(f"{name} of {task} is a whole number, not {shared[name]!r}")
                changes[field] = int(shared[name])
        return replace(self, **changes)

    def at_context(self, context: int) -> Self:
        """The same with prompts of another length."""
        return dataclasses.replace(self, context=context)


def _read_depth(value: Any, task: str) -> float | None:
    if value in (None, "", "none"):
        return None
    try:
        depth = float(value)
    except (TypeError, ValueError):
        depth = -1.0
    if not 0 <= depth <= 1:
        raise TaskError(f"depth of {task} is a share of the text from 0 to 1, or none to spread it, not {value!r}")
    return depth
