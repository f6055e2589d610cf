"""Reads a data set's row into a problem's fields and target, whatever names the data set has for its columns.

Column names are compared without case, spaces, hyphens and underscores. Where none of a field's names is there, the
error says which ones are understood.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.tasks.target_checks import check_integer, check_text
from hyperscale.utils.row_files import PlacedRow
from hyperscale.utils.validation import shorten


@dataclass(frozen=True)
class Option:
    """A text whose likelihood is measured.

    Attributes:
        text: The option, as the task has it.
        context: What the model reads before it.
        continuation: What is scored: the option behind what separates it from the context.
    """

    text: str
    context: str
    continuation: str


@dataclass(frozen=True)
class ProblemRow:
    """One problem in the form its task expects.

    Attributes:
        id: Unique within the task.
        fields: What the prompt's template may name.
        target: What the task's grader compares with; JSON-able.
        level: Difficulty from 1 up, or None.
        place: Where the row stands, for messages.
        rendered: The whole prompt, if whoever made the row put it into the model's chat template.
        options: What is scored, if the problem is one of likelihood.
    """

    id: str
    fields: dict[str, Any]
    target: Any
    level: int | None = None
    place: str = ""
    rendered: str | None = None
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class DateRange:
    """Days from ``start`` to ``end``, both included; None leaves an end open."""

    start: date | None = None
    end: date | None = None

    def __contains__(self, day: date) -> bool:
        return (self.start is None or self.start <= day) and (self.end is None or day <= self.end)


def _normalize(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


class _FieldReader:
    """A row's fields by any of their names; NaN, which a table of numbers has where there is nothing, is None."""

    def __init__(self, row: PlacedRow) -> None:
        self._place = row.place
        self._values: dict[str, Any] = {}
        for name, value in row.row.items():
            key = _normalize(str(name))
            if isinstance(value, float) and math.isnan(value):
                value = None
            if self._values.get(key, value) != value and None not in (value, self._values[key]):
                raise TaskError(f"{row.place} has two fields with the name {key}, which differ: leave one out")
            if value is not None:
                self._values[key] = value
            else:
                self._values.setdefault(key, None)

    def find(self, *names: str) -> Any:
        """The value of the first name that has one, or None."""
        values = (self._values.get(_normalize(name)) for name in names)
        return next((value for value in values if value is not None and value != ""), None)

    def require(self, *names: str) -> Any:
        """As `find`; the lack of all of them is an error."""
        value = self.find(*names)
        if value is None:
            columns = ", ".join(self._values) or "none"
            raise TaskError(f"{self._place} has no field {' or '.join(names)}; its fields: {columns}")
        return value

    def text(self, *names: str) -> str:
        """As `require`, as text without whitespace around it; anything but text and numbers is an error."""
        return self._as_text(self.require(*names), names)

    def long_text(self, *names: str) -> str:
        """As `text`; a number is an error too."""
        value = self.require(*names)
        if not isinstance(value, str):
            raise TaskError(f"{self._place}: {' or '.join(names)} is {shorten(value)}, which is no text")
        return self._as_text(value, names)

    def _as_text(self, value: Any, names: tuple[str, ...]) -> str:
        name = " or ".join(names)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_integer or (isinstance(value, float) and math.isfinite(value))
        if not isinstance(value, str) and not is_number:
            raise TaskError(f"{self._place}: {name} is {shorten(value)}, which is no text and no number")
        try:
            text = str(value).strip()
        except ValueError:  # Python's limit on the digits of an integer
            raise TaskError(f"{self._place}: {name} is an integer too long to be read") from None
        if not text:
            raise TaskError(f"{self._place}: {name} is empty")
        return text


_ID = ("id", "unique_id", "record_id", "question_id", "problem_idx", "problem_id")
_PROBLEM = ("problem", "question", "prompt", "input")
_MOST_OF_AIME = 999
_DIGITS_OF_LEVEL = 6
_ANSWER = ("answer", "expected_answer", "final_answer", "target")


def _identify(fields: _FieldReader, problem: str) -> str:
    """The row's id, or a short hash of its problem."""
    if fields.find(*_ID) is not None:
        return fields.text(*_ID)
    return hashlib.sha256(problem.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _level(fields: _FieldReader) -> int | None:
    """A level's number, also out of "Level 4"."""
    # Data sets write 4, "4" or "Level 4"; a column of numbers with gaps comes as 4.0.
    level = fields.find("level")
    if isinstance(level, float):
        return int(level) if level.is_integer() and 0 <= level < 10**_DIGITS_OF_LEVEL else None
    digits = "".join(c for c in str(level or "") if c.isdecimal())
    return int(digits) if 0 < len(digits) <= _DIGITS_OF_LEVEL else None


def read_problem(row: PlacedRow) -> ProblemRow:
    """A question with one answer, as in AIME and MATH-500: ``problem``, ``answer``, perhaps ``id`` and ``level``.

    Without an answer, the last box of ``solution`` is taken.
    """
    from hyperscale.scoring.graders.forms.boxes import last_box

    fields = _FieldReader(row)
    text = fields.long_text(*_PROBLEM)
    if fields.find(*_ANSWER) is not None:
        answer: str | None = fields.text(*_ANSWER)
    else:
        answer = last_box(str(fields.find("solution") or ""))
    if answer is None:
        fields.require(*_ANSWER, "solution with a box")
    return ProblemRow(_identify(fields, text), {"problem": text}, str(answer).strip(), _level(fields))


def read_integer_problem(row: PlacedRow) -> ProblemRow:
    """As `read_problem`; the answer must be an integer from 0 to 999, as AIME's are."""
    problem = read_problem(row)
    try:
        number = check_integer(problem.target)
    except TaskError as error:
        raise TaskError(f"{row.place}: {error}") from None
    if not 0 <= number <= _MOST_OF_AIME:
        raise TaskError(f"{row.place}: its answer is {number}, and AIME's are 0 to {_MOST_OF_AIME}")
    return ProblemRow(problem.id, problem.fields, str(number), problem.level)


def read_choice_question(row: PlacedRow) -> ProblemRow:
    """A question with one right and three wrong answers, in GPQA's columns.

    The place of the right answer is a function of the question's id.
    """
    from hyperscale.tasks.choice_order import arrange

    fields = _FieldReader(row)
    text = fields.long_text("Question", "problem")
    right = fields.text("Correct Answer")
    wrong = [fields.text(f"Incorrect Answer {n}") for n in (1, 2, 3)]
    name = _identify(fields, text)
    try:
        check_text(name, "id")
        options, letter = arrange(name, right, wrong)
    except TaskError as error:
        raise TaskError(f"{row.place}: {error}") from None
    return ProblemRow(name, {"question": text, **dict(zip("ABCD", options, strict=True))}, letter)


_DIFFICULTY = {"easy": 1, "medium": 2, "hard": 3}


def read_program_problem(row: PlacedRow) -> ProblemRow:
    """A LiveCodeBench problem, in its columns; the tests stay compressed, for the grader to read."""
    from hyperscale.scoring.graders import livecodebench_tests

    fields = _FieldReader(row)
    text, name = fields.long_text("question_content"), fields.text("question_id")
    starter = str(fields.find("starter_code") or "").rstrip()
    try:
        columns = {column: fields.require(column) for column in livecodebench_tests.FIELDS}
        target = livecodebench_tests.make_target(columns)
    except TaskError as error:
        raise TaskError(error if row.place in str(error) else f"{row.place}: {error}") from None
    level = _DIFFICULTY.get(str(fields.find("difficulty")).lower())
    return ProblemRow(name, {"problem": text, "starter": starter}, target, level)


def read_prompt(row: PlacedRow) -> ProblemRow:
    """A finished prompt: ``prompt`` and ``target``, perhaps ``id`` and ``level``; stands in for a generated task."""
    fields = _FieldReader(row)
    prompt = fields.long_text("prompt")
    # Not stripped or made text: the hidden tests of a program are a list.
    target = fields.require("target", "answer", "tests")
    return ProblemRow(_identify(fields, prompt), {"prompt": prompt}, target, _level(fields))


def contest_date(row: PlacedRow) -> date:
    """The day of a row's ``contest_date``.

    Raises:
        TaskError: There is none, or it is no date.
    """
    value = _FieldReader(row).require("contest_date")
    return _parse_day(str(value), f"contest_date of {row.place}")


def parse_date_range(start: Any, end: Any) -> DateRange:
    """A range from two dates as YAML or a person writes them (2024-08-01); None, "" or "none" leaves an end open.

    Raises:
        TaskError: One of them is no date, or the range is empty.
    """
    days = [
        None if text in (None, "", "none") else _parse_day(str(text), "start_date and end_date")
        for text in (start, end)
    ]
    if days[0] and days[1] and days[0] > days[1]:
        raise TaskError(f"the dates {days[0]} to {days[1]} leave no day: start_date comes first")
    return DateRange(*days)


def _parse_day(text: str, what: str) -> date:
    try:
        return date.fromisoformat(text[:10])  # what follows is a time of day
    except ValueError:
        raise TaskError(f"{what}: {text!r} is not a date like 2024-08-01") from None


#: Readers by the names that task files give in ``form``.
FORMS: dict[str, Callable[[PlacedRow], ProblemRow]] = {
    "problem": read_problem,
    "integer": read_integer_problem,
    "choice": read_choice_question,
    "program": read_program_problem,
    "given": read_prompt,
}
