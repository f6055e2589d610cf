"""Reads task files (``tasks/*.yaml``) in lm-eval's format, without running any code in them.

What hyperscale needs beyond lm-eval's own keys stands under ``metadata``, the fields of `TaskMetadata`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hyperscale.errors import TaskError
from hyperscale.scoring.graders import registry as graders
from hyperscale.tasks.context.kinds import KINDS
from hyperscale.tasks.context.problems import ContextProblems
from hyperscale.tasks.datasets import DatasetProblems, GeneratedProblems
from hyperscale.tasks.loading import HubDataset
from hyperscale.tasks.own import lm_eval_names, sources
from hyperscale.tasks.own.lm_eval_names import is_lm_eval
from hyperscale.tasks.own.lm_eval_task import read_lm_eval
from hyperscale.tasks.own.schema import read_own
from hyperscale.tasks.own.sources import TaskSource, task_loader
from hyperscale.tasks.own_lm_eval import LmEvalProblems
from hyperscale.tasks.row_formats import FORMS
from hyperscale.tasks.task import CONTEXT_MARK, Strategy, Task
from hyperscale.utils.paths import data_dir
from hyperscale.utils.validation import suggestion, validate
from hyperscale.utils.yaml_files import read_yaml

#: Keys of lm-eval 0.4.13's task files; hyperscale reads those that `TaskFile` names and leaves the others to lm-eval.
LM_EVAL_KEYS = frozenset({
    "task", "task_alias", "tag", "custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs",
    "training_split", "validation_split", "test_split", "fewshot_split", "process_docs", "doc_to_text",
    "doc_to_target", "doc_to_image", "doc_to_audio", "unsafe_code", "doc_to_choice", "process_results",
    "use_prompt", "description", "target_delimiter", "fewshot_delimiter", "fewshot_config", "num_fewshot",
    "metric_list", "output_type", "generation_kwargs", "repeats", "filter_list", "should_decontaminate",
    "doc_to_decontamination_query", "gen_prefix", "metadata",
})  # fmt: skip
_Loader = task_loader()
_REMEDY = "see the other files in tasks/"
#: Fields of `TaskMetadata` that set which problems count.
_FILTER = {"release", "start_date", "end_date", "exclude_broken"}


class TaskMetadata(BaseModel):
    """What a task file says under ``metadata``.

    Attributes:
        name: The task's name again, for what lm-eval calls with the metadata as arguments.
        summary: One line on what is asked.
        version: Changes whenever prompts, documents or grading change.
        grader: Name of the grader.
        strategy: How W chains make one verdict.
        base_length: L of the base point, in tokens; one of ``lengths``.
        lengths: Values of L the task is evaluated at, ascending, in tokens.
        size: Number of problems.
        prompt_tokens: Typical length of a prompt in tokens.
        options: How many options each question has (grader ``choice``); four if None.
        gated: Whether the problems must not appear in plain text.
        kind: Benchmark of the built-in generator, or kind of a context task (`context.kinds.KINDS`), or None.
        context: Tokens of a context task's prompts, unless a run names others.
        form: Form of the data set's rows, or None.
        release: Configuration of the data set instead of ``dataset_name`` (form ``program``).
        start_date: First day of the contests that count (form ``program``).
        end_date: Last day.
        exclude_broken: Whether problems known to be ungradable are left out (form ``program``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = ""
    summary: str
    version: str
    grader: str
    strategy: Strategy
    base_length: int
    lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    size: int = Field(ge=1)
    prompt_tokens: int = Field(ge=1)
    options: int | None = Field(None, ge=2, le=26)
    gated: bool = False
    kind: str | None = None
    context: int | None = Field(None, ge=1)
    form: str | None = None
    release: str | None = None
    start_date: str | date | None = None
    end_date: str | date | None = None
    exclude_broken: bool | None = None

    @field_validator("grader")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in graders.names():
            raise ValueError(f"must be one of {', '.join(graders.names())}")
        return name

    @field_validator("form")
    @classmethod
    def _has_reader(cls, form: str | None) -> str | None:
        if form is not None and form not in FORMS:
            raise ValueError(f"must be one of {', '.join(FORMS)}")
        return form

    @field_validator("lengths")
    @classmethod
    def _ascend(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if list(lengths) != sorted(set(lengths)):
            raise ValueError("must be ascending, each length once")
        return lengths

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.base_length not in self.lengths:
            lengths = ", ".join(map(str, self.lengths))
            raise ValueError(f"has base_length {self.base_length}, which is not one of its lengths ({lengths})")
        if (self.kind is None) == (self.form is None):
            raise ValueError("must have kind, of the built-in generator, or form, of a data set's rows, and not both")
        if (self.context is not None) != (self.kind in KINDS):
            raise ValueError(f"has context, and only then, where kind is one of {', '.join(KINDS)}")
        return self


class TaskFile(BaseModel):
    """The keys of a task file that hyperscale reads.

    Attributes:
        task: The task's name.
        doc_to_text: Jinja template of the user message, over the fields of a problem.
        test_split: The split whose rows are the problems.
        dataset_path: The data set's id on the hub; None if the problems are generated.
        dataset_name: Its configuration, or None.
        metadata: The rest.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    doc_to_text: str
    test_split: str
    dataset_path: str | None = None
    dataset_name: str | None = None
    metadata: TaskMetadata

    @model_validator(mode="after")
    def _names_its_problems(self) -> Self:
        if self.metadata.form is not None and self.dataset_path is None:
            raise ValueError("dataset_path is missing: metadata.form speaks of the rows of a data set")
        return self

    def to_task(self) -> Task:
        """The task, its parameters as the file sets them.

        Raises:
            TaskError: A date is malformed, or the form has no such parameter.
        """
        metadata = self.metadata
        return Task(
            name=self.task,
            summary=metadata.summary,
            version=metadata.version,
            grader=metadata.grader,
            strategy=metadata.strategy,
            base_length=metadata.base_length,
            lengths=metadata.lengths,
            size=metadata.size,
            prompt_tokens=metadata.prompt_tokens,
            options=metadata.options,
            template=self.doc_to_text,
            origin=self._origin(),
            gated=metadata.gated,
        )

    def _origin(self) -> GeneratedProblems | DatasetProblems | ContextProblems:
        metadata = self.metadata
        if metadata.kind in KINDS:
            assert metadata.context is not None
            return ContextProblems.of_kind(metadata.kind, metadata.size, metadata.context)
        if metadata.kind is not None:
            return GeneratedProblems(metadata.kind, metadata.size, code=metadata.grader == "code")
        assert metadata.form is not None
        assert self.dataset_path is not None
        dataset = HubDataset(self.dataset_path, self.dataset_name, self.test_split, metadata.gated)
        parameters = metadata.model_dump(include=_FILTER, exclude_none=True)
        return DatasetProblems(dataset, metadata.form).with_parameters(parameters, self.task)


def available() -> dict[str, str]:
    """Name and one-line summary of every task."""
    return {name: load(name).summary for name in _names()}


def load(name: str) -> Task:
    """Read a task file: one that ships with the package, or one of the user's own.

    Args:
        name: The task's name. A context task's may be followed by the tokens of its prompts: ``niah_single@4096``. A
            task of the user's own has its file's path, or the name that it was made known by (`own.sources`). Tasks
            that lm-eval ships are ``lm_eval:NAME``.

    Raises:
        TaskError: No task has that name, or its file is malformed; the tokens are no number, or the task has no
            context.
    """
    if sources.is_path(name):
        return read_source(sources.read_source(name))
    if is_lm_eval(name):
        return _read_named(name)
    file, at, context = name.partition(CONTEXT_MARK)
    if file not in _names():
        if (source := sources.find(name)) is not None:
            return read_source(source)
        known = [*_names(), *sources.declared()]
        raise TaskError(
            f"unknown task {name!r}{_nearest(name, known)} known tasks: {', '.join(known)}; a task of your own is "
            "named by its file, ./NAME.yaml, or with --include FOLDER, and one that lm-eval ships lm_eval:NAME"
        )
    task = read(data_dir("tasks") / f"{file}.yaml")
    return task.at_context(context) if at else task


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ";"


def _read_named(name: str) -> Task:
    """A task that lm-eval ships; its prompts are made as lm-eval makes them."""
    source = sources.find(name)
    if source is None:
        if name not in (names := lm_eval_names.declare(name)):
            raise TaskError(f"{name} is a group: name one of its tasks ({', '.join(names[:3])}, …)")
        source = sources.find(name)
    assert source is not None
    try:
        task = read_lm_eval(source)
    except TaskError as error:
        raise TaskError(
            f"{name} cannot be a task of a run ({error}): run it under lm-eval, python -m hyperscale.lm_eval "
            "(docs/tasks.md)"
        ) from None
    assert isinstance(task.origin, LmEvalProblems)
    return replace(task, name=name, origin=replace(task.origin, renders=True))


def _names() -> list[str]:
    # A leading underscore marks what lm-eval's files include.
    return sorted(path.stem for path in data_dir("tasks").glob("*.yaml") if not path.stem.startswith("_"))


def read_source(source: TaskSource) -> Task:
    """A task of the user's own: in the form of ours, or that of docs/own-tasks.md.

    Raises:
        TaskError: The file is malformed; the message names the file, the line and the key.
    """
    values = source.parse().values
    if sources.name_of(source.parse()) in _names():
        raise TaskError(f"{source.path}: task {values['task']} is one of hyperscale's own: choose another name")
    if form_of(values) == "shipped":
        return read(source.path, source.text)
    if form_of(values) == "lm-eval":
        return read_lm_eval(source)
    return read_own(source).to_task(source.path.parent)


def form_of(values: Mapping[str, Any]) -> Literal["shipped", "lm-eval", "own"]:
    """Whose keys a task file has: those of the files that ship with the package, lm-eval's, or those for one's own."""
    metadata = values.get("metadata")
    if isinstance(metadata, dict) and "grader" in metadata:
        return "shipped"
    return "lm-eval" if set(map(str, values)) & (LM_EVAL_KEYS - {"task"} | {"include"}) else "own"


def read(path: Path, text: str | None = None) -> Task:
    """Read a task file at a path, in the form of those that ship with the package.

    Args:
        path: The file.
        text: What it held, if it is not to be read again.

    Raises:
        TaskError: The file is missing or malformed; the message names the file, the line and the key.
    """
    file = read_yaml(path, TaskError, _REMEDY, _Loader, text)
    # lm-eval's own keys are accepted unseen; a key that it would not know either is a slip of the pen.
    for key in map(str, file.values):
        if key not in LM_EVAL_KEYS:
            raise TaskError(f"{file.place((key,))}: {key} is unknown{suggestion(key, LM_EVAL_KEYS)}")
    # What `to_task` refuses (dates, parameters) has no line of its own: the file is named at least.
    try:
        return validate(TaskFile, file.values, TaskError, file.place, _REMEDY).to_task()
    except TaskError as error:
        raise TaskError(error if str(path) in str(error) else f"{path}: {error}") from None
