"""Gets a task's problems: from the built-in generator, a local file or folder, or the Hugging Face hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from hyperscale.errors import ConfigError, TaskError
from hyperscale.tasks import loading, row_formats
from hyperscale.tasks.loading import HubDataset
from hyperscale.tasks.row_formats import DateRange, ProblemRow
from hyperscale.utils.paths import expand_home
from hyperscale.utils.row_files import PlacedRow


@dataclass(frozen=True)
class GeneratedProblems:
    """Problems of the built-in generator (`hyperscale.mini.benchmarks`).

    Attributes:
        kind: The benchmark: aime, gpqa or lcb.
        size: Number of problems.
        code: Whether the target is a program's hidden tests instead of an answer.
    """

    kind: str
    size: int
    code: bool

    def rows(self, limit: int | None, data: str | None, task: str) -> list[ProblemRow]:
        """The first ``limit`` problems, generated, or read from ``data``: rows with ``prompt`` and ``target``."""
        if data is not None:
            return _read(loading.read_local(Path(data)), "given")[:limit]
        from hyperscale.mini import benchmarks

        problems = benchmarks.generate_problems(self.kind, self.size if limit is None else min(limit, self.size))
        return [
            ProblemRow(
                problem.id, {"prompt": problem.prompt}, problem.tests if self.code else problem.answer, problem.level
            )
            for problem in problems
        ]


@dataclass(frozen=True)
class ProblemFilter:
    """Which problems of a LiveCodeBench-like data set count; the defaults are the task file's.

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
    def dates(self) -> DateRange:
        """Days of the contests that count."""
        return row_formats.parse_date_range(self.start_date, self.end_date)


@dataclass(frozen=True)
class DatasetProblems:
    """Problems of a data set.

    Attributes:
        dataset: Where it is on the hub.
        form: Name of the rows' form (`row_formats.FORMS`).
        filter: Which of its problems count.
    """

    dataset: HubDataset
    form: str
    filter: ProblemFilter = field(default_factory=ProblemFilter)

    def rows(self, limit: int | None, data: str | None, task: str) -> list[ProblemRow]:
        """The first ``limit`` problems of the hub's data set, or of the file or folder ``data`` in its place."""
        rows = loading.read_local(Path(data)) if data is not None else loading.download(self.dataset, task)
        counting = [row for row in rows if self._counts(row)]
        if not counting:
            raise TaskError(
                f"none of the {len(rows)} problems of {data or self.dataset} counts for {task}: its start_date is "
                f"{self.filter.start_date or 'open'}, its end_date {self.filter.end_date or 'open'}, and problems "
                f"known to be broken are {'left out' if self.filter.exclude_broken else 'kept'} (--task-param)"
            )
        return _read(counting, self.form)[:limit]

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """The same under other settings of the filter.

        Raises:
            TaskError: The task has no such parameter, or a value makes no sense.
        """
        names = [parameter.name for parameter in fields(ProblemFilter)] if self.form == "program" else []
        for name in values:
            if name not in names:
                raise TaskError(f"{task} has no parameter {name!r}; it has: {', '.join(names) or 'none'}")
        # From the command line values are texts; "none" and "" open an end.
        changes: dict[str, Any] = {n: None if v in (None, "", "none") else str(v) for n, v in values.items()}
        if "exclude_broken" in values:
            changes["exclude_broken"] = _parse_truth(values["exclude_broken"], task)
        problems = replace(self.filter, **changes)
        assert problems.dates is not None  # parses the dates, so that a wrong one is reported before any data are read
        dataset = replace(self.dataset, name=problems.release or self.dataset.name)
        return replace(self, filter=problems, dataset=dataset)

    def _counts(self, row: PlacedRow) -> bool:
        if self.form != "program":
            return True
        from hyperscale.scoring.graders.livecodebench_tests import is_broken

        dates = self.filter.dates
        # Rows need no date where any would do.
        in_range = dates == DateRange() or row_formats.contest_date(row) in dates
        return in_range and not (self.filter.exclude_broken and is_broken(row.row))


def _parse_truth(value: Any, task: str) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if str(value).lower() not in words:
        raise TaskError(f"exclude_broken of {task} is true or false, not {value!r}")
    return words[str(value).lower()]


def _read(rows: list[PlacedRow], form: str) -> list[ProblemRow]:
    """The rows' problems, whose ids must differ."""
    problems = [replace(row_formats.FORMS[form](row), place=row.place) for row in rows]
    places: dict[str, str] = {}  # of each id, for the message about a second one
    for row, problem in zip(rows, problems, strict=True):
        if problem.id in places:
            raise TaskError(f"{places[problem.id]} and {row.place} have the same id {problem.id!r}")
        places[problem.id] = row.place
    return problems


def data_by_task(data: Mapping[str, str], tasks: tuple[str, ...]) -> dict[str, str]:
    """Absolute paths by task; "" names the only task.

    Raises:
        ConfigError: A name is no task of the run, or "" could be any of several.
    """
    if "" in data and len(tasks) != 1:
        raise ConfigError(
            f"the run has {len(tasks)} tasks ({', '.join(tasks)}): say whose data it is, --data task=PATH"
        )
    if strangers := sorted(set(data) - {"", *tasks}):
        raise ConfigError(f"--data names {strangers[0]!r}, which is no task of this run ({', '.join(tasks)})")
    return {name or tasks[0]: str(expand_home(path).absolute()) for name, path in data.items()}
