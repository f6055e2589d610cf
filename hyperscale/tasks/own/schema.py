"""Says what stands in the file of a user's own task, and makes a task of it."""

import string
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hyperscale.errors import TaskError
from hyperscale.scoring.graders import registry as graders
from hyperscale.scoring.graders.function import FunctionGrader
from hyperscale.tasks.own.sources import REMEDY, TaskSource, check_name
from hyperscale.tasks.own_problems import (
    MOST_OPTIONS,
    FileProblems,
    FunctionProblems,
    OwnProblems,
    ProblemForm,
    sources_hash,
)
from hyperscale.tasks.task import Strategy, Task
from hyperscale.tasks.templates import fields_of
from hyperscale.utils.paths import expand_home
from hyperscale.utils.user_functions import FORM
from hyperscale.utils.validation import all_faults, suggestion
from hyperscale.utils.yaml_files import YamlFile

#: Graders that a file may name: LiveCodeBench's has targets of that data set's form.
GRADERS = [name for name in graders.names() if name != "livecodebench"]
_CHOICE, _CODE = "choice", "code"
_NAME = set(string.ascii_letters + string.digits + "_-.")
# What changes neither a prompt nor a verdict; of the data and their place, the problems' own hash tells.
_NOT_IN_VERSION = {"summary", "data", "lengths", "problems", "example"}
_TYPICAL_TOKENS = 100  # of a prompt, where a plan has nothing to measure


class OwnTaskFile(BaseModel):
    """The keys of a task file of the user's own.

    Attributes:
        task: The task's name.
        prompt: Jinja template of the user message, over the fields of a problem.
        answer: The field with the right answer, or a template of it.
        grader: A grader's name, or ``module:function``.
        data: JSONL or Parquet file, or folder of them; relative to the task's file.
        generator: ``module:function`` that makes the problems instead.
        problems: How many it makes.
        seed: Of its random numbers.
        choices: The field with the options of a question, or fields with one each; the template then has ``choices``.
        id: The field with a problem's id.
        level: The field with its difficulty, from 1.
        summary: One line on what is asked.
        strategy: How W chains make one verdict.
        lengths: Values of L the task is evaluated at.
        base_length: L of the base point.
        options: How many options each question has at most, for the grader ``choice``.
        stop: Texts that end an answer.
        greedy: Whether a run of such tasks alone draws nothing.
        gated: Whether problems must not be shown in plain text.
        example: Template of a right answer as a model would write it, for `hyperscale tasks --check`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    prompt: str
    answer: str
    grader: str = ""
    data: str | None = None
    generator: str | None = None
    problems: int = Field(100, ge=1, le=10**6)
    seed: int = Field(0, ge=0)
    choices: str | tuple[str, ...] | None = None
    id: str | None = None
    level: str | None = None
    summary: str = ""
    strategy: Strategy | None = None
    lengths: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = Field((256, 512, 1024, 2048), min_length=1)
    base_length: int | None = None
    options: int | None = Field(None, ge=2, le=26)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    greedy: bool = False
    gated: bool = False
    example: str | None = None

    @field_validator("lengths", "stop", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | str) and not isinstance(value, bool) else value

    @field_validator("task")
    @classmethod
    def _can_be_named(cls, name: str) -> str:
        if not name or not set(name) <= _NAME:
            raise ValueError("must be made of letters, digits, _, - and .")
        return check_name(name)

    @field_validator("grader")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name and name not in GRADERS and not FORM.fullmatch(name):
            raise ValueError(f"must be module:function, or one of {', '.join(GRADERS)}")
        return name

    @field_validator("generator")
    @classmethod
    def _is_function(cls, name: str | None) -> str | None:
        if name is not None and not FORM.fullmatch(name):
            raise ValueError("must be module:function, for `def function(number, rng)` in module.py beside this file")
        return name

    @field_validator("prompt", "example")
    @classmethod
    def _can_be_read(cls, template: str | None) -> str | None:
        if template is not None:
            try:
                fields_of(template)
            except TaskError as error:
                raise ValueError(f"is no template: {error}") from None
        return template

    @field_validator("prompt")
    @classmethod
    def _asks(cls, template: str) -> str:
        if "{" in template and not fields_of(template) and "{{" not in template:
            raise ValueError("names no field of a problem: a field is written {{name}}, in two braces")
        if not fields_of(template):
            raise ValueError("names no field of a problem, and would ask the same each time: write {{name}} for one")
        return template

    @field_validator("lengths")
    @classmethod
    def _ascend(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if list(lengths) != sorted(set(lengths)):
            raise ValueError("must be ascending, each length once")
        return lengths

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.data is None) == (self.generator is None):
            raise ValueError("must have data, a file of problems, or generator, a function that makes them; not both")
        if not self.grader and self.choices is None:
            raise ValueError(f"has no grader: write one of {', '.join(GRADERS)}, or module:function")
        if self.choices is not None and self.grader not in ("", _CHOICE):
            raise ValueError(f"has choices, whose letters the grader {_CHOICE} reads, and names grader {self.grader}")
        if self.choices is not None and "choices" not in fields_of(self.prompt):
            raise ValueError("has choices that the prompt does not show: put {{choices}} into it, for lines `A. …`")
        if self.options is not None and self.grader not in ("", _CHOICE):
            raise ValueError(f"has options, which go with the grader {_CHOICE} alone")
        if self.base_length is not None and self.base_length not in self.lengths:
            raise ValueError(f"has base_length {self.base_length}, which is not one of its lengths {self.lengths}")
        if self.generator is None and {"problems", "seed"} & self.model_fields_set:
            raise ValueError("has problems or seed, which go with a generator alone; --limit takes the first problems")
        return self

    @property
    def grader_name(self) -> str:
        """The grader's name; that of a question with choices if none is given."""
        return self.grader or _CHOICE

    def to_task(self, folder: Path) -> Task:
        """The task.

        Args:
            folder: Where its file stands.
        """
        name = self.grader_name
        is_function = ":" in name
        functions = [(function, folder) for function in (name, self.generator) if function and ":" in function]
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_IN_VERSION)
        return Task(
            name=self.task,
            summary=self.summary or f"a task of your own, graded by {name}",
            version=sources_hash(values, functions),
            grader=name,
            strategy=self.strategy or ("pass" if name == _CODE else "majority"),
            base_length=self.base_length or self.lengths[-1],
            lengths=self.lengths,
            size=self.problems if self.generator else 0,
            prompt_tokens=_TYPICAL_TOKENS,
            template=self.prompt,
            template_key="prompt",
            origin=self._origin(folder),
            gated=self.gated,
            options=self.options or (MOST_OPTIONS if self.choices is not None else None),
            own_grader=partial(FunctionGrader, name, folder) if is_function else None,
            stop=self.stop,
            greedy=self.greedy,
        )

    def _origin(self, folder: Path) -> OwnProblems:
        form = ProblemForm(self.answer, self.choices, self.id, self.level)
        if self.generator is not None:
            return FunctionProblems(self.generator, folder, self.problems, self.seed, form)
        assert self.data is not None
        return FileProblems(folder / expand_home(self.data), form)


def read_own(source: TaskSource) -> OwnTaskFile:
    """The keys of a task's file.

    Raises:
        TaskError: A key is unknown or has a wrong value; the message names file, line and key.
    """
    result = find_faults(source.parse())
    if isinstance(result, OwnTaskFile):
        return result
    raise TaskError(f"{result[0]}{'' if result[0].endswith('?') else f': {REMEDY}'}")


def find_faults(file: YamlFile) -> OwnTaskFile | list[str]:
    """The keys of a task's file, or all that is wrong with them, each with file, line and key."""
    try:
        return OwnTaskFile.model_validate(file.values)
    except ValidationError as error:
        return list(_describe(error, file))


def _describe(error: ValidationError, file: YamlFile) -> Iterator[str]:
    for location, fault in all_faults(error, OwnTaskFile):
        # A key may hold a text or a list: pydantic names which of them it tried.
        keys = tuple(key for key in location if key != "str" and not str(key).startswith("tuple["))
        yield f"{file.place(keys)}: {'.'.join(map(str, keys))}{' ' if keys else ''}{fault}"


def unknown_fields(template: str, fields: set[str]) -> list[str]:
    """What a template names that is no field, a sentence each."""
    return [
        f"{name!r} is no field of the problem{suggestion(name, fields)}"
        for name in sorted(fields_of(template) - fields)
    ]
