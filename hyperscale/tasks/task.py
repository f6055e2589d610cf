"""Tasks: lm-eval task files (``tasks/*.yaml``), read without running any code in them.

What hyperscale needs beyond lm-eval's own keys stands under ``metadata``: version, grader, strategy, base_length,
lengths, size, prompt_tokens, and where the documents come from: ``kind`` of the built-in generator, or the ``form`` of
the rows of the data set that ``dataset_path``, ``dataset_name`` and ``test_split`` name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.tasks.datasets import DatasetProblems, GeneratedProblems, ProblemFilter
from hyperscale.tasks.loading import HubDataset
from hyperscale.tasks.row_formats import FORMS
from hyperscale.utils.paths import data_dir

Strategy = Literal["majority", "pass"]


@dataclass(frozen=True)
class Doc:
    """One problem.

    Attributes:
        id: Unique within the task.
        prompt: The user message.
        target: What the task's grader compares with; JSON-able.
        level: Difficulty from 1 up, or None if the task has no levels.
    """

    id: str
    prompt: str
    target: Any
    level: int | None = None


@dataclass(frozen=True)
class Task:
    """A task file, read.

    Attributes:
        name: The task's name.
        summary: One line on what is asked.
        version: Changes whenever prompts, documents or grading change.
        grader: Name of the grader (`hyperscale.scoring.graders`).
        strategy: How W chains make one verdict: "majority" vote or "pass" (any chain right).
        base_length: L of the base point, in tokens.
        lengths: Values of L the task is evaluated at, ascending, in tokens.
        size: Number of problems.
        prompt_tokens: Typical length of a prompt in tokens, for plans made without the data.
        template: Jinja template of the user message, over the fields of a problem.
        origin: Where the problems come from.
        gated: Whether the problems must not appear in plain text: results then hold no question.
    """

    name: str
    summary: str
    version: str
    grader: str
    strategy: Strategy
    base_length: int
    lengths: tuple[int, ...]
    size: int
    prompt_tokens: int
    template: str
    origin: GeneratedProblems | DatasetProblems
    gated: bool = False

    def docs(self, limit: int | None = None, data: str | None = None) -> list[Doc]:
        """The first ``limit`` problems, or all of them; always the same ones in the same order.

        Args:
            limit: Number of problems.
            data: JSONL or Parquet file, or folder of them, that stands in for the task's data set.

        Raises:
            TaskError: ``limit`` is not positive, or the data are missing, malformed or cannot be downloaded.
        """
        if limit is not None and limit < 1:
            raise TaskError(f"a limit of {limit} leaves no problem of {self.name}: ask for at least 1")
        return [
            Doc(row.id, self.prompt(row.fields), row.target, row.level)
            for row in self.origin.rows(limit, data, self.name)
        ]

    def prompt(self, fields: Mapping[str, str]) -> str:
        """The user message of a problem, as lm-eval would render it.

        Raises:
            TaskError: The template is malformed, or names a field that the problem has not.
        """
        import jinja2

        try:
            return str(_template(self.template).render(**fields))
        except jinja2.TemplateError as error:
            raise TaskError(f"doc_to_text of {self.name} cannot be rendered: {error}") from None

    def with_parameters(self, **values: Any) -> "Task":
        """The task with other parameters of its data set, e.g. LiveCodeBench's release and dates.

        Raises:
            TaskError: The task has no such parameter, or a value makes no sense.
        """
        if not values:
            return self
        if isinstance(self.origin, GeneratedProblems):
            raise TaskError(f"{self.name} has no parameter {next(iter(values))!r}; it has: none")
        return dataclasses.replace(self, origin=self.origin.with_parameters(values, self.name))

    def prompt_ids(self, doc: Doc, tokenizer: Any) -> tuple[int, ...]:
        """Token ids of the problem in the model's chat template, opened for the model's turn.

        Args:
            doc: A problem of this task.
            tokenizer: A transformers tokenizer.

        Raises:
            TaskError: The tokenizer has no chat template.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise TaskError(f"the model's tokenizer has no chat template, which {self.name} needs: use a chat model")
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": doc.prompt}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tuple(int(i) for i in ids)


def prompt_hash(prompt: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a user message, stored with every sample."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def fingerprint(docs: Sequence[Doc]) -> str:
    """Sixteen hexadecimal digits that change with any problem's id, prompt or target."""
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps([doc.id, doc.prompt, doc.target], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def available() -> dict[str, str]:
    """Name and one-line summary of every task."""
    return {name: load(name).summary for name in _names()}


def load(name: str) -> Task:
    """Read a task file.

    Raises:
        TaskError: No task has that name, or its file is malformed.
    """
    if name not in _names():
        raise TaskError(f"unknown task {name!r}; known tasks: {', '.join(_names())}")
    return read(data_dir("tasks") / f"{name}.yaml")


def _names() -> list[str]:
    return sorted(path.stem for path in data_dir("tasks").glob("*.yaml") if not path.stem.startswith("_"))


def read(path: Path) -> Task:
    """Read a task file at a path.

    Raises:
        TaskError: The file is missing or malformed.
    """
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, yaml.YAMLError) as error:
        raise TaskError(f"task file {path} cannot be read: {' '.join(str(error).split())}") from None
    meta = config.get("metadata") if isinstance(config, dict) else None
    if not isinstance(meta, dict):
        raise TaskError(f"task file {path} has no metadata: give version, grader, strategy, base_length, lengths, kind")
    try:
        task = Task(
            name=str(config["task"]),
            summary=str(meta["summary"]),
            version=str(meta["version"]),
            grader=str(meta["grader"]),
            strategy=meta["strategy"],
            base_length=int(meta["base_length"]),
            lengths=tuple(int(length) for length in meta["lengths"]),
            size=int(meta["size"]),
            prompt_tokens=int(meta["prompt_tokens"]),
            template=str(config["doc_to_text"]),
            origin=_origin(config, meta),
            gated=bool(meta.get("gated", False)),
        )
    except KeyError as error:
        raise TaskError(f"task file {path} lacks {error.args[0]!r}: see the other files in tasks/") from None
    except (TypeError, ValueError) as error:
        raise TaskError(f"task file {path} is malformed: {error}") from None
    _check(task, path)
    return task


def _origin(config: dict[str, Any], meta: dict[str, Any]) -> GeneratedProblems | DatasetProblems:
    if "kind" in meta:
        return GeneratedProblems(str(meta["kind"]), int(meta["size"]), meta["grader"] == "code")
    source = HubDataset(
        str(config["dataset_path"]),
        None if config.get("dataset_name") is None else str(config["dataset_name"]),
        str(config["test_split"]),
        bool(meta.get("gated", False)),
    )
    if meta["form"] not in FORMS:
        raise ValueError(f"unknown form {meta['form']!r}, known: {', '.join(FORMS)}")
    choices = {name: meta[name] for name in (each.name for each in dataclasses.fields(ProblemFilter)) if name in meta}
    return DatasetProblems(source, str(meta["form"])).with_parameters(choices, str(config["task"]))


def _check(task: Task, path: Path) -> None:
    graders.get(task.grader)
    if task.strategy not in get_args(Strategy):
        raise TaskError(f"task file {path} has strategy {task.strategy!r}; known: {', '.join(get_args(Strategy))}")
    if not task.lengths or list(task.lengths) != sorted(set(task.lengths)) or task.lengths[0] < 1:
        raise TaskError(f"task file {path}: lengths must be positive and ascending, not {list(task.lengths)}")
    if task.base_length not in task.lengths:
        raise TaskError(f"task file {path}: base_length {task.base_length} is not one of its lengths")


@cache
def _template(text: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text)


class _Loader(yaml.SafeLoader):
    """Reads ``!function module.name`` as the plain text ``module.name``; lm-eval would import it."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))
