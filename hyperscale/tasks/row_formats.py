"""Forms of problems: from a data set's row, whatever it calls its fields, to the fields that a task's prompt names.

Field names are compared without case, spaces and underscores. Where none of a field's names is there, the error says
which ones are understood.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from hyperscale.errors import TaskError

Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One problem in the form its task expects.

    Attributes:
        id: Unique within the task.
        fields: What the prompt's template may name.
        target: What the task's grader compares with; JSON-able.
        level: Difficulty from 1 up, or None.
    """

    id: str
    fields: dict[str, str]
    target: Any
    level: int | None = None


@dataclass(frozen=True)
class Window:
    """Dates of a contest, both ends included; None leaves an end open."""

    start: date | None = None
    end: date | None = None

    def __contains__(self, day: date) -> bool:
        return (self.start is None or self.start <= day) and (self.end is None or day <= self.end)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


class _Reader:
    """A row's fields by any of their names."""

    def __init__(self, row: Row, where: str) -> None:
        self._row, self._where = {_plain(str(name)): value for name, value in row.items()}, where

    def find(self, *names: str) -> Any:
        """The value of the first name there is, or None."""
        values = (self._row.get(_plain(name)) for name in names)
        return next((value for value in values if value is not None and value != ""), None)

    def need(self, *names: str) -> Any:
        value = self.find(*names)
        if value is None:
            there = ", ".join(self._row) or "none"
            raise TaskError(f"{self._where} has no field {' or '.join(names)}; its fields: {there}")
        return value

    def text(self, *names: str) -> str:
        return str(self.need(*names)).strip()


_ID = ("id", "unique_id", "record_id", "question_id", "problem_idx", "problem_id")
_PROBLEM = ("problem", "question", "prompt", "input")


def _identity(read: _Reader, problem: str) -> str:
    """The row's id, or a short hash of its problem."""
    value = read.find(*_ID)
    return hashlib.sha256(problem.encode()).hexdigest()[:12] if value is None else str(value).strip()


def _level(read: _Reader) -> int | None:
    digits = "".join(c for c in str(read.find("level") or "") if c.isdigit())
    return int(digits) if digits else None


def problem(row: Row, where: str) -> Item:
    """A question with one answer, as in AIME and MATH-500: ``problem``, ``answer``, perhaps ``id`` and ``level``.

    Where there is no answer, the last box of ``solution`` is it.
    """
    from hyperscale.scoring.graders.integer import last_box

    read = _Reader(row, where)
    text = read.text(*_PROBLEM)
    answer = read.find("answer", "expected_answer", "final_answer", "target")
    if answer is None:
        answer = last_box(str(read.find("solution") or ""))
    if answer is None:
        read.need("answer", "expected_answer", "final_answer", "target", "solution with a box")
    return Item(_identity(read, text), {"problem": text}, str(answer).strip(), _level(read))


def integer(row: Row, where: str) -> Item:
    """A `problem` whose answer must be an integer."""
    from hyperscale.scoring.graders.integer import canonical

    item = problem(row, where)
    number = canonical(str(item.target).removesuffix(".0"))
    if number is None:
        raise TaskError(f"{where} has the answer {item.target!r}, which is not an integer")
    return Item(item.id, item.fields, number, item.level)


def choice(row: Row, where: str) -> Item:
    """A question with one right and three wrong answers, in GPQA's columns.

    The place of the right answer is a function of the question's id.
    """
    from hyperscale.tasks.choice_order import arrange

    read = _Reader(row, where)
    text = read.text("Question", "problem")
    right = read.text("Correct Answer")
    wrong = [read.text(f"Incorrect Answer {n}") for n in (1, 2, 3)]
    name = _identity(read, text)
    options, letter = arrange(name, right, wrong)
    return Item(name, {"question": text, **dict(zip("ABCD", options, strict=True))}, letter)


_DIFFICULTY = {"easy": 1, "medium": 2, "hard": 3}


def program(row: Row, where: str) -> Item:
    """A LiveCodeBench problem, in its columns; the tests stay packed, for the grader to read."""
    from hyperscale.scoring.graders import livecodebench_tests

    read = _Reader(row, where)
    text, name = read.text("question_content"), read.text("question_id")
    fields = {"problem": text, "starter": str(read.find("starter_code") or "").rstrip()}
    packed = {column: read.need(column) for column in livecodebench_tests.FIELDS}
    return Item(name, fields, livecodebench_tests.target(packed), _DIFFICULTY.get(str(read.find("difficulty")).lower()))


def contest_date(row: Row, where: str) -> date:
    """The day of a row's ``contest_date``.

    Raises:
        TaskError: There is none, or it is no date.
    """
    value = _Reader(row, where).need("contest_date")
    return _day(str(value), f"contest_date of {where}")


def window(start: Any, end: Any) -> Window:
    """A window from two dates as YAML or a person writes them (2024-08-01); None, "" or "none" leaves an end open.

    Raises:
        TaskError: One of them is no date, or the window is empty.
    """
    days = [
        _day(str(day), "start_date and end_date") if day not in (None, "", "none") else None for day in (start, end)
    ]
    if days[0] and days[1] and days[0] > days[1]:
        raise TaskError(f"the date window {days[0]} to {days[1]} is empty: start_date comes first")
    return Window(*days)


def _day(text: str, what: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise TaskError(f"{what}: {text!r} is not a date like 2024-08-01") from None


def given(row: Row, where: str) -> Item:
    """A finished prompt: ``prompt`` and ``target``, perhaps ``id`` and ``level``; stands in for a generated task."""
    read = _Reader(row, where)
    prompt = read.text("prompt")
    return Item(_identity(read, prompt), {"prompt": prompt}, read.need("target", "answer", "tests"), _level(read))


FORMS: dict[str, Callable[[Row, str], Item]] = {
    "problem": problem,
    "integer": integer,
    "choice": choice,
    "program": program,
    "given": given,
}
"""Names that task files use."""
