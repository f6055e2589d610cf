"""Defines a task: problems, prompts, a grader and the lengths L that it is evaluated at."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.scoring.graders.likelihood import LikelihoodGrader
from hyperscale.tasks.context.problems import ContextProblems
from hyperscale.tasks.datasets import DatasetProblems, GeneratedProblems
from hyperscale.tasks.own_lm_eval import LmEvalProblems
from hyperscale.tasks.own_problems import FileProblems, FunctionProblems
from hyperscale.tasks.row_formats import Option, ProblemRow
from hyperscale.tasks.target_checks import check_target, check_text
from hyperscale.tasks.templates import render

if TYPE_CHECKING:
    from hyperscale.models.prompts import PromptFormat
    from hyperscale.scoring.graders.base import Grader

Strategy = Literal["majority", "pass"]

CONTEXT_MARK = "@"
"""Stands between a context task's name and the tokens of its prompts: ``niah_single@4096``."""


@dataclass(frozen=True)
class Doc:
    """One problem of a task, its prompt rendered.

    Attributes:
        id: Unique within the task.
        prompt: The user message.
        target: What the task's grader compares with; JSON-able.
        level: Difficulty from 1 up, or None if the task has no levels.
        place: Where it stands in the data, for messages; empty for generated problems.
        continued: Whether the model goes on where the prompt ends.
        rendered: The whole prompt, if it is in the model's chat template already.
        options: What is scored, of a problem of likelihood.
    """

    id: str
    prompt: str
    target: Any
    level: int | None = None
    place: str = field(default="", compare=False)
    continued: bool = field(default=False, compare=False)
    rendered: str | None = field(default=None, compare=False)
    options: tuple[Option, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Task:
    """A task, as its file describes it.

    Attributes:
        name: The task's name.
        summary: One line on what is asked.
        version: Changes whenever prompts, documents or grading change.
        grader: Name of the grader (`hyperscale.scoring.graders`).
        strategy: How W chains make one verdict: "majority" vote or "pass" (any chain right). "likelihood" for problems
            that are scored: each has one verdict.
        base_length: L of the base point, in tokens.
        lengths: Values of L the task is evaluated at, ascending, in tokens.
        size: Number of problems; 0 if only the data tell.
        prompt_tokens: Typical length of a prompt in tokens, for plans made without the data.
        template: Jinja template of the user message, over the fields of a problem.
        origin: Where the problems come from.
        gated: Whether the problems must not appear in plain text: results then hold no question.
        options: How many options each question has, where one is to be chosen; None for four.
        template_key: The key of its file that has the template, for messages.
        own_grader: Makes the grader of a task of the user's own, if it is none of ours by name.
        stop: Texts that end an answer.
        continued: Whether the model goes on where the prompt ends, as lm-eval's tasks ask for: ``Answer:``.
        greedy: Whether a run of such tasks alone draws nothing, unless it is told to.
    """

    name: str
    summary: str
    version: str
    grader: str
    strategy: Strategy | Literal["likelihood"]
    base_length: int
    lengths: tuple[int, ...]
    size: int
    prompt_tokens: int
    template: str
    origin: GeneratedProblems | DatasetProblems | ContextProblems | FileProblems | FunctionProblems | LmEvalProblems
    gated: bool = False
    options: int | None = None
    template_key: str = "doc_to_text"
    own_grader: "Callable[[], Grader] | None" = None
    stop: tuple[str, ...] = ()
    greedy: bool = False
    continued: bool = False

    def new_grader(self) -> "Grader":
        """A grader of the task's answers."""
        if self.own_grader is not None:
            return self.own_grader()
        return graders.get(self.grader, self.options)

    @property
    def is_likelihood(self) -> bool:
        """Whether given texts are scored, and nothing is generated."""
        return self.strategy == "likelihood"

    @property
    def is_rendered(self) -> bool:
        """Whether its prompts are put into the model's chat template where they are made."""
        return isinstance(self.origin, LmEvalProblems) and self.origin.renders

    @property
    def context(self) -> int | None:
        """Tokens that its prompts fill; None where they are as long as the problems are."""
        return self.origin.context if isinstance(self.origin, ContextProblems) else None

    def docs(
        self, limit: int | None = None, data: str | None = None, prompt_format: "PromptFormat | None" = None
    ) -> list[Doc]:
        """The first ``limit`` problems, or all of them; always the same ones in the same order.

        Args:
            limit: Number of problems.
            data: JSONL or Parquet file, or folder of them, that stands in for the task's data set; text files for a
                context task, whose haystack they are.
            prompt_format: How the model's prompts are made; only a context task needs it, and one that `is_rendered`
                has plain prompts without it.

        Raises:
            TaskError: ``limit`` is not positive, the data are missing, malformed or cannot be downloaded, or a context
                task's prompts cannot be made.
        """
        return [self.doc_of(row) for row in self.rows(limit, data, prompt_format)]

    def rows(
        self, limit: int | None = None, data: str | None = None, prompt_format: "PromptFormat | None" = None
    ) -> list[ProblemRow]:
        """The fields that the prompts of `docs` are rendered from; arguments and errors as there."""
        if limit is not None and limit < 1:
            raise TaskError(f"a limit of {limit} leaves no problem of {self.name}: ask for at least 1")
        if isinstance(self.origin, LmEvalProblems):
            return self.origin.rows(limit, data, self.name, prompt_format)
        if not isinstance(self.origin, ContextProblems):
            return self.origin.rows(limit, data, self.name)

        def measure(fields: Mapping[str, str]) -> int:
            assert prompt_format is not None
            return len(prompt_format.prompt(self.prompt(fields)).ids)

        return self.origin.rows(limit, data, self.name, measure if prompt_format else None)

    def doc_of(self, row: ProblemRow) -> Doc:
        """The problem of a row of `rows`, whose prompt can be written and whose target can be met.

        Raises:
            TaskError: One of them cannot; the message names the row's place.
        """
        if not row.place:  # what is generated needs no check
            prompt = self.prompt(row.fields)
        else:
            try:
                prompt = self.prompt(row.fields)
                check_text(prompt, "prompt")
                check_text(row.id, "id")
                check_target(self.grader, row.target, self.options)
                for option in row.options:
                    check_text(option.text, "option")
            except TaskError as error:
                raise TaskError(f"{row.place}: {error}") from None
        return Doc(row.id, prompt, row.target, row.level, row.place, self.continued, row.rendered, row.options)

    def prompt(self, fields: Mapping[str, Any]) -> str:
        """The user message of a problem, as lm-eval would render it.

        Raises:
            TaskError: The template is malformed, or names a field that the problem lacks.
        """
        try:
            return render(self.template, fields)
        except TaskError as error:
            raise TaskError(f"{self.template_key} of {self.name} cannot be rendered: {error}") from None

    def with_parameters(self, **values: Any) -> "Task":
        """The task with other parameters of its data set, e.g. LiveCodeBench's release and dates.

        Raises:
            TaskError: The task has no such parameter, or a value makes no sense.
        """
        if not values:
            return self
        if isinstance(self.origin, GeneratedProblems):
            raise TaskError(f"{self.name} has no parameter {next(iter(values))!r}; it has: none")
        origin = self.origin.with_parameters(values, self.name)
        size = origin.size if isinstance(origin, ContextProblems | FunctionProblems) else self.size
        changed = dataclasses.replace(self, origin=origin, size=size)
        if self.is_likelihood and isinstance(origin, LmEvalProblems):
            changed = dataclasses.replace(changed, own_grader=partial(LikelihoodGrader, origin.metric))
        return changed

    def at_context(self, tokens: str | int) -> "Task":
        """A context task with prompts of so many tokens, which its name tells from then on.

        Raises:
            TaskError: The task has no context, or the tokens are no number from 1 up.
        """
        name = without_context(self.name)
        if not isinstance(self.origin, ContextProblems):
            raise TaskError(f"{name} has prompts as long as its problems are: name it without {CONTEXT_MARK}{tokens}")
        if not str(tokens).isdecimal() or int(tokens) < 1:
            raise TaskError(f"{name}{CONTEXT_MARK}{tokens}: the context is a number of tokens, as {name}@4096")
        origin = self.origin.at_context(int(tokens))
        return dataclasses.replace(
            self, name=f"{name}{CONTEXT_MARK}{int(tokens)}", origin=origin, prompt_tokens=origin.context
        )

    def prompt_ids(self, doc: Doc, tokenizer: Any) -> tuple[int, ...]:
        """Token ids of the problem in the form that the model reads, without anything that a run may add.

        Args:
            doc: A problem of this task.
            tokenizer: A transformers tokenizer.

        Raises:
            ModelError: The tokenizer's chat template fails.
        """
        from hyperscale.models.prompts import PromptFormat

        return PromptFormat(tokenizer).prompt(doc.prompt, continued=doc.continued).ids


def context_of(name: str) -> int | None:
    """Tokens of the prompts of a context task, as its full name tells; None for any other task."""
    tokens = name.partition(CONTEXT_MARK)[2]
    return int(tokens) if tokens.isdecimal() else None


def without_context(name: str) -> str:
    """The name of a context task without the length of its prompts; any other name as it is."""
    return name.partition(CONTEXT_MARK)[0]


def prompt_hash(prompt: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a prompt or a user message, stored with every sample."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def fingerprint(docs: Sequence[Doc]) -> str:
    """Sixteen hexadecimal digits that change with any problem's id, prompt or target."""
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps([doc.id, doc.prompt, doc.target], sort_keys=True).encode())
        for option in doc.options:
            digest.update(json.dumps([option.text, option.context, option.continuation]).encode())
    return digest.hexdigest()[:16]
