"""Reads the problems of a user's own task from its data file, or has the user's function make them."""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hyperscale.errors import TaskError
from hyperscale.tasks import loading
from hyperscale.tasks.choice_order import LETTERS, arrange
from hyperscale.tasks.row_formats import ProblemRow
from hyperscale.tasks.templates import evaluate, is_template, render
from hyperscale.utils.paths import is_there
from hyperscale.utils.user_functions import describe_failure, find_source, load_function
from hyperscale.utils.validation import shorten, suggestion

MOST_OPTIONS = len(LETTERS)


@dataclass(frozen=True)
class ProblemForm:
    """How the fields of a row make a problem.

    Attributes:
        answer: The field with the right answer, or a template of it, which makes a text; or a list or mapping, or where
            there is something to choose the place of an option, if it is one expression of such a kind.
        choices: The field that holds the options as a list, or templates of them; None where there is nothing to
            choose.
        id: The field with the problem's id; None for ``id`` where a row has one, else a hash of the row.
        level: The field with its difficulty, a number from 1; None if there is none.
    """

    answer: str
    choices: str | tuple[str, ...] | None = None
    id: str | None = None
    level: str | None = None

    def read(self, fields: Mapping[str, Any], place: str, name: str | None = None) -> ProblemRow:
        """The problem of a row.

        Args:
            fields: The row.
            place: Where it stands, for messages.
            name: The problem's id, if it is not to be the row's; a field that is named as `id` comes first.

        Raises:
            TaskError: A field is missing or cannot be used; the message names place and key.
        """
        try:
            text = self._value(self.answer, fields, "answer")
            answer = evaluate(self.answer, fields) if is_template(self.answer) else text
            if name is None or self.id is not None:
                name = self._id(fields)
            if self.choices is None:
                kept = answer if isinstance(answer, list | dict) else text
                return ProblemRow(name, dict(fields), kept, self._level(fields), place)
            options = self._options(fields)
            order, letter = arrange(name, *_split(options, text if str(text).strip() in options else answer))
            lines = "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(order))
            return ProblemRow(name, {**fields, "choices": lines}, letter, self._level(fields), place)
        except TaskError as error:
            raise TaskError(f"{place}: {error}") from None

    def check_ids(self, problems: Iterable[ProblemRow]) -> None:
        """Refuse problems that could not be told apart.

        Raises:
            TaskError: Two have the same id.
        """
        places: dict[str, str] = {}  # of each id
        for problem in problems:
            if problem.id in places:
                remedy = "give them ids that differ" if self.id or "id" in problem.fields else "leave one out"
                raise TaskError(f"{places[problem.id]} and {problem.place} have the same id {problem.id!r}: {remedy}")
            places[problem.id] = problem.place

    def _value(self, name: str, fields: Mapping[str, Any], key: str) -> Any:
        """A field's value, or what a template makes of the fields."""
        if is_template(name):
            try:
                return render(name, fields)
            except TaskError as error:
                raise TaskError(f"{key} cannot be rendered: {error}") from None
        if name not in fields:
            raise TaskError(f"{key}: {name!r} is no field of the problem{suggestion(name, fields)}")
        value = fields[name]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise TaskError(f"{key}: its field {name} is empty")
        return value

    def _options(self, fields: Mapping[str, Any]) -> list[str]:
        if isinstance(self.choices, tuple):
            options = [self._value(choice, fields, "choices") for choice in self.choices]
        else:
            assert self.choices is not None
            options = self._value(self.choices, fields, "choices")
        if not isinstance(options, list) or not all(isinstance(option, str | int | float) for option in options):
            raise TaskError(f"choices: {shorten(options)} is no list of texts: name a field that holds one, or fields")
        texts = [str(option).strip() for option in options]
        if not 2 <= len(texts) <= MOST_OPTIONS:
            raise TaskError(f"choices: there are {len(texts)}, and a question has 2 to {MOST_OPTIONS}")
        if len(set(texts)) < len(texts):
            raise TaskError(f"choices: {shorten(texts)} has an option twice")
        return texts

    def _id(self, fields: Mapping[str, Any]) -> str:
        if self.id is not None:
            return str(self._value(self.id, fields, "id"))
        if isinstance(given := fields.get("id"), str | int) and str(given).strip():
            return str(given).strip()
        text = json.dumps(fields, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def _level(self, fields: Mapping[str, Any]) -> int | None:
        if self.level is None:
            return None
        value = self._value(self.level, fields, "level")
        try:
            level = float(value)
        except (TypeError, ValueError):
            level = math.nan
        if not (level >= 1 and level == int(level)):
            raise TaskError(f"level: {shorten(value)} is no whole number from 1 up")
        return int(level)


def _split(options: list[str], answer: Any) -> tuple[str, list[str]]:
    """The right option and the others; an answer is an option's text, or its place in the list from 0."""
    by_text = str(answer).strip() in options
    is_place = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options)
    if by_text and is_place and options[answer] != str(answer):
        raise TaskError(
            f"answer: {answer} is an option, and the place of {options[answer]!r}: write the right option as a text "
            "that only one of them can be"
        )
    if not by_text and not is_place:
        raise TaskError(
            f"answer: {shorten(answer)} is none of the options {shorten(options)}, nor the place of one from 0"
        )
    right = str(answer).strip() if by_text else options[answer]
    return right, [option for option in options if option != right]


@dataclass(frozen=True)
class FileProblems:
    """Problems that stand in a file, or a folder of files, of the user's.

    Attributes:
        path: A JSONL or Parquet file, or a folder of them.
        form: How a row makes a problem.
    """

    path: Path
    form: ProblemForm

    def rows(self, limit: int | None, data: str | None, task: str) -> list[ProblemRow]:
        """The first ``limit`` problems of the file, or of the file or folder ``data`` in its place.

        Raises:
            TaskError: The file is missing or malformed, a row lacks a field, or two have one id.
        """
        path = Path(data) if data is not None else self.path
        if data is None and not is_there(path):
            raise TaskError(f"{task}: there is no file {path}: mend `data` in its file, or pass --data {task}=PATH")
        problems = [self.form.read(row.row, row.place) for row in loading.read_local(path)]
        self.form.check_ids(problems)
        return problems[:limit]

    def row_faults(self) -> list[str]:
        """What is wrong with each row that makes no problem; nothing of a file that is not there.

        Raises:
            TaskError: The file is malformed.
        """
        faults: list[str] = []
        if not is_there(self.path):
            return faults
        for row in loading.read_local(self.path):
            try:
                self.form.read(row.row, row.place)
            except TaskError as error:
                faults.append(str(error))
        return faults

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """A file's problems have no parameters."""
        raise TaskError(f"{task} has no parameter {next(iter(values))!r}; it has: none")


@dataclass(frozen=True)
class FunctionProblems:
    """Problems that a function of the user's makes.

    Attributes:
        function: ``module:function``; ``function(number, rng)`` returns the fields of a problem.
        folder: Where the module stands.
        size: Number of problems.
        seed: Another seed gives other problems.
        form: How the fields make a problem.
    """

    function: str
    folder: Path
    size: int
    seed: int
    form: ProblemForm

    def rows(self, limit: int | None, data: str | None, task: str) -> list[ProblemRow]:
        """The first ``limit`` problems, each from a generator of random numbers of its own.

        So the first problems are the same however many are asked for.

        Raises:
            TaskError: The function cannot be loaded, fails, returns no fields, makes two problems of one id, or draws
                from anything but its generator; or data are given in its place.
        """
        if data is not None:
            raise TaskError(f"{task} makes its problems: leave --data out")
        function = load_function(self.function, self.folder, TaskError)
        count = self.size if limit is None else min(limit, self.size)
        fields = [self._call(function, number) for number in range(count)]
        if fields and self._call(function, 0) != fields[0]:
            raise TaskError(
                f"generator {self.function} makes another problem when it is called again: draw from `rng` alone"
            )
        problems = [
            self.form.read(values, f"{self.function} problem {number}", f"{self.seed}-{number}")
            for number, values in enumerate(fields)
        ]
        self.form.check_ids(problems)
        return problems

    def _call(self, function: Any, number: int) -> dict[str, Any]:
        try:
            fields = function(number, random.Random(f"{self.seed}-{number}"))
        except Exception as error:  # whatever the user's function does
            source = find_source(self.function, self.folder) or self.function
            raise TaskError(
                f"generator {self.function}: {describe_failure(error, source)}, for problem {number}"
            ) from None
        if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
            raise TaskError(
                f"generator {self.function} returns {shorten(fields)}: it must return a dict of the problem's fields"
            )
        return fields

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """The same with another ``seed``, or another number of ``problems``.

        Raises:
            TaskError: There is no such parameter, or it is no whole number.
        """
        fields = {"seed": "seed", "problems": "size"}
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                raise TaskError(f"{task} has no parameter {name!r}; it has: {', '.join(fields)}")
            if not str(value).isdecimal() or (name == "problems" and int(value) < 1):
                raise TaskError(f"{name} of {task} is a whole number, not {value!r}")
            changes[fields[name]] = int(value)
        return replace(self, **changes)


OwnProblems = FileProblems | FunctionProblems


def sources_hash(values: Mapping[str, Any], functions: Iterable[tuple[str, Path]]) -> str:
    """Eight hexadecimal digits that change with a task's definition, and with the modules that it names.

    Args:
        values: The definition.
        functions: Each function that it names, with the folder in which its module is sought first.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for function, folder in functions:
        source = find_source(function, folder)
        digest.update(source.read_bytes() if source is not None else function.encode())
    return digest.hexdigest()[:8]
