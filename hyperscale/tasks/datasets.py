"""The problems of a task, from wherever they come: the built-in generator, a local file or folder, or the hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from hyperscale.errors import ConfigError, TaskError
from hyperscale.tasks import loading, row_formats
from hyperscale.tasks.loading import Row, Source
from hyperscale.tasks.row_formats import Item, Window


@dataclass(frozen=True)
class Generated:
    """Problems of the built-in generator.

    Attributes:
        kind: The benchmark.
        size: Number of problems.
        code: Whether the target is the hidden tests.
    """

    kind: str
    size: int
    code: bool

    def items(self, limit: int | None, data: str | None, task: str) -> list[Item]:
        """The first ``limit`` problems, generated, or read from ``data``: rows with ``prompt`` and ``target``."""
        if data is not None:
            return _read(loading.local(Path(data)), "given", data)[:limit]
        from hyperscale.mini import benchmarks

        found = benchmarks.items(self.kind, self.size if limit is None else min(limit, self.size))
        return [
            Item(item.id, {"prompt": item.prompt}, item.tests if self.code else item.answer, item.level)
            for item in found
        ]


@dataclass(frozen=True)
class Choices:
    """What can be set about a LiveCodeBench-like data set, with the values of the task's file.

    Attributes:
        release: Configuration of the data set; the task file's if None.
        start_date: First day of the contests that count; open if None.
        end_date: Last day; open if None.
        exclude_broken: Whether problems known to be ungradable are left out.
    """

    release: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    exclude_broken: bool = False

    @property
    def window(self) -> Window:
        """The dates as a window."""
        return row_formats.window(self.start_date, self.end_date)


@dataclass(frozen=True)
class Downloaded:
    """Problems of a data set.

    Attributes:
        source: Where it is on the hub.
        form: Name of the problems' form (`forms.FORMS`).
        choices: Which of its problems count.
    """

    source: Source
    form: str
    choices: Choices = field(default_factory=Choices)

    def items(self, limit: int | None, data: str | None, task: str) -> list[Item]:
        """The first ``limit`` problems of the hub's data set, or of the file or folder ``data`` in its place."""
        where = data or str(self.source)
        rows = loading.local(Path(data)) if data is not None else loading.hub(self.source, task)
        wanted = [row for row in rows if self._counts(row, where)]
        if not wanted:
            raise TaskError(
                f"none of the {len(rows)} problems of {where} counts for {task}: its start_date is "
                f"{self.choices.start_date or 'open'}, its end_date {self.choices.end_date or 'open'}, and problems "
                f"known to be broken are {'left out' if self.choices.exclude_broken else 'kept'} (--task-param)"
            )
        return _read(wanted, self.form, where)[:limit]

    def chosen(self, values: Mapping[str, Any], task: str) -> Self:
        """The same with other choices.

        Raises:
            TaskError: The task has no such choice, or a value makes no sense.
        """
        known = [each.name for each in fields(Choices)] if self.form == "program" else []
        for name in values:
            if name not in known:
                raise TaskError(f"{task} has no parameter {name!r}; it has: {', '.join(known) or 'none'}")
        clean: dict[str, Any] = {n: None if v in (None, "", "none") else str(v) for n, v in values.items()}
        if "exclude_broken" in values:
            clean["exclude_broken"] = _truth(values["exclude_broken"], task)
        choices = replace(self.choices, **clean)
        assert choices.window is not None  # reads the dates, so that a wrong one is reported before any data are
        return replace(self, choices=choices, source=replace(self.source, name=choices.release or self.source.name))

    def _counts(self, row: Row, where: str) -> bool:
        if self.form != "program":
            return True
        from hyperscale.scoring.graders.livecodebench_tests import is_broken

        window = self.choices.window
        inside = window == Window() or row_formats.contest_date(row, where) in window
        return inside and not (self.choices.exclude_broken and is_broken(row))


def _truth(value: Any, task: str) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if str(value).lower() not in words:
        raise TaskError(f"exclude_broken of {task} is true or false, not {value!r}")
    return words[str(value).lower()]


def _read(rows: list[Row], form: str, where: str) -> list[Item]:
    found = [row_formats.FORMS[form](row, f"row {number} of {where}") for number, row in enumerate(rows, start=1)]
    seen: dict[str, int] = {}
    for number, item in enumerate(found, start=1):
        if item.id in seen:
            raise TaskError(f"rows {seen[item.id]} and {number} of {where} have the same id {item.id!r}")
        seen[item.id] = number
    return found


def data_by_task(data: Mapping[str, str], tasks: tuple[str, ...]) -> dict[str, str]:
    """Absolute paths by task; "" names the only task.

    Raises:
        ConfigError: A name is no task of the run, or "" could be any of several.
    """
    if "" in data and len(tasks) != 1:
        raise ConfigError(
            f"the run has {len(tasks)} tasks ({', '.join(tasks)}): say whose data it is, --data task=PATH"
        )
    if unused := sorted(set(data) - {"", *tasks}):
        raise ConfigError(f"--data names {unused[0]!r}, which is no task of this run ({', '.join(tasks)})")
    return {name or tasks[0]: str(Path(path).expanduser().absolute()) for name, path in data.items()}
