"""Tries a user's own task before a run: its file, its problems, its prompt, its grader on right and wrong answers."""

import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import SandboxError, TaskError
from hyperscale.tasks.own import lm_eval_form, sources
from hyperscale.tasks.own.schema import OwnTaskFile, find_faults, unknown_fields
from hyperscale.tasks.own.sources import TaskSource
from hyperscale.tasks.own_problems import FileProblems, FunctionProblems
from hyperscale.tasks.templates import render
from hyperscale.utils.paths import expand_home
from hyperscale.utils.validation import shorten
from hyperscale.utils.yaml_files import YamlFile

if TYPE_CHECKING:
    from hyperscale.scoring.graders.base import Grader
    from hyperscale.tasks.row_formats import ProblemRow
    from hyperscale.tasks.task import Doc, Task

_LONGEST = 2000  # characters of a prompt that are shown
_MOST = 20  # mistakes of the data that are listed


@dataclass
class Report:
    """What a check found.

    Attributes:
        lines: For people, in order.
        mistakes: What is wrong, a sentence each; they stand in ``lines`` too.
    """

    lines: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    def say(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)

    def fail(self, mistake: str) -> None:
        """Add a mistake."""
        self.mistakes.append(mistake)
        self.lines.append(f"  wrong: {mistake}")


def files_of(path: Path) -> list[Path]:
    """A task's file, or the files of a folder.

    Raises:
        TaskError: There is none.
    """
    path = expand_home(path)
    if not path.is_dir():
        return [path]
    files = [file for file in sources.list_files(path) if _is_task(file)]
    if not files:
        raise TaskError(f"{path} holds no task file: such a file ends in .yaml and has the key `task`")
    return files


def _is_task(path: Path) -> bool:
    try:
        values = sources.read_source(path).parse().values
    except TaskError:  # which the check of the file says
        return True
    return "task" in values and "group" not in values


def check_file(path: Path) -> Report:
    """Look at a task's file and all that it names; nothing is generated, but the functions that it names are run."""
    report = Report()
    report.say(f"{path}")
    try:
        source = sources.read_source(path)
        file = source.parse()
        sources.name_of(file)
    except TaskError as error:
        report.fail(str(error))
        return report
    task = _read(source, file, report)
    if task is None:
        return report
    keys = find_faults(file)
    own = keys if isinstance(keys, OwnTaskFile) else None  # in another form there are no keys of ours to look at
    grader = _load_grader(task, file, report)
    docs, rows = _read_problems(task, file, own, report)
    if docs:
        _show(task, docs, report)
        if task.is_likelihood:
            _show_options(docs[0], report)
        elif grader is not None:
            _try_grader(grader, own, file, docs, rows, report)
    if not report.mistakes:
        report.say(f"  nothing is wrong: hyperscale run --task {path} …")
    return report


def check_groups(folder: Path, known: Collection[str] = ()) -> Report | None:
    """Look at the groups of a folder's tasks; None if it is no folder, or has none.

    Args:
        folder: The folder.
        known: Mistakes that the checks of its files named. One of them may keep groups from being read; it is not
            named again then, and there is no report.
    """
    folder = expand_home(folder)
    if not folder.is_dir():
        return None
    report = Report()
    report.say(f"{folder}: groups")
    try:
        sources.declare_folder(folder)
    except TaskError as error:
        if str(error) in known:
            return None
        report.fail(str(error))
        return report
    names = sources.declared_groups(folder)
    for name in names:
        try:
            report.say(f"  {name}: {', '.join(sources.expand_group(name))}")
        except TaskError as error:
            report.fail(str(error))
    return report if names else None


def _read(source: TaskSource, file: YamlFile, report: Report) -> "Task | None":
    """The task, if its keys are right."""
    from hyperscale.tasks import task_files

    form = task_files.form_of(file.values)
    result: object = None
    try:
        if form == "own":
            result = find_faults(file)
        elif form == "lm-eval":
            result = lm_eval_form.find_faults(sources.with_included(source), file)
    except TaskError as error:
        result = [str(error)]
    if isinstance(result, list):
        for fault in result:
            report.fail(fault)
        return None
    try:
        return task_files.read_source(source)
    except TaskError as error:
        for line in str(error).split("\n"):
            report.fail(line)
        return None


def _load_grader(task: "Task", file: YamlFile, report: Report) -> "Grader | None":
    grader = task.new_grader()
    try:
        grader.prepare()
    except TaskError as error:
        report.fail(f"{file.place(('grader',))}: grader: {error}")
        return None
    return grader


def _read_problems(
    task: "Task", file: YamlFile, own: OwnTaskFile | None, report: Report
) -> "tuple[list[Doc], list[ProblemRow]]":
    """The problems, if all can be read; else what is wrong, with the keys that name what is not there."""
    try:
        rows = task.rows()
    except TaskError as error:
        keys = ("generator" if isinstance(task.origin, FunctionProblems) else "data", "dataset_path")
        key = next((key for key in keys if key in file.values), "task")
        if isinstance(task.origin, FileProblems) and (faults := _row_faults(task.origin)):
            _list_faults(faults, report)
            return [], []
        start = "" if str(error).startswith(key) else f"{key}: "
        report.fail(f"{file.place((key,))}: {start}{error}")
        return [], []
    if own is not None:
        faults = unknown_fields(own.prompt, set(rows[0].fields))
        for fault in faults:
            report.fail(f"{file.place(('prompt',))}: prompt: {fault}")
        if faults:
            return [], []
    docs, faults = [], []
    for row in rows:
        try:
            docs.append(task.doc_of(row))
        except TaskError as error:
            faults.append(str(error))
    _list_faults(faults, report)
    return ([], []) if faults else (docs, rows)


def _row_faults(origin: FileProblems) -> list[str]:
    try:
        return origin.row_faults()
    except TaskError:  # which the check has already
        return []


def _list_faults(faults: Sequence[str], report: Report) -> None:
    for fault in faults[:_MOST]:
        report.fail(fault)
    if len(faults) > _MOST:
        report.fail(f"and {len(faults) - _MOST} more problems like these")


def _show(task: "Task", docs: "Sequence[Doc]", report: Report) -> None:
    first = docs[0]
    count = f"{len(docs)} problem{'s' if len(docs) > 1 else ''}"
    report.say(f"  task {task.name}: {count}, graded by {task.grader}, vote {task.strategy}, L {_list(task.lengths)}")
    report.say(f"  the first problem ({first.place or first.id}, id {first.id}), as it will be asked:")
    prompt = first.prompt if len(first.prompt) <= _LONGEST else f"{first.prompt[:_LONGEST]} …"
    report.say(textwrap.indent(prompt, "    | ", lambda _: True))
    report.say(f"  its target: {shorten(first.target)}")
    if len({doc.prompt for doc in docs}) < len(docs):
        report.say("  note: some problems have the same prompt")


def _show_options(doc: "Doc", report: Report) -> None:
    report.say("  what is scored behind it:")
    for place, option in enumerate(doc.options):
        mark = "right" if str(place) in doc.target else ""
        report.say(f"    {place} {mark:5} {shorten(option.continuation)}")


def _list(lengths: Sequence[int]) -> str:
    return ", ".join(map(str, lengths))


def _try_grader(
    grader: "Grader",
    own: OwnTaskFile | None,
    file: YamlFile,
    docs: "Sequence[Doc]",
    rows: "Sequence[ProblemRow]",
    report: Report,
) -> None:
    """Grade the first problem's own answer, another problem's, and texts that say nothing."""
    first, place = docs[0], file.place(("grader",))
    writers: dict[str, Callable[[Any], str | None]] = {
        "integer": lambda target: rf"The answer is \boxed{{{target}}}.",
        "math": lambda target: rf"The answer is \boxed{{{target}}}.",
        "choice": lambda target: f"Answer: {target}",
        "contains": lambda target: target if isinstance(target, str) else ", ".join(map(str, target)),
        "code": lambda target: None,
    }
    write = writers.get(grader.name, str)
    other = next((i for i, doc in enumerate(docs) if doc.target != first.target), None)
    try:
        if own is not None and own.example is not None:
            right: str | None = render(own.example, {**rows[0].fields, "target": first.target})
            wrong = None if other is None else render(own.example, {**rows[other].fields, "target": docs[other].target})
        else:
            right = write(first.target)
            wrong = write(docs[other].target if other is not None else _another(grader, first.target))
    except TaskError as error:
        report.fail(f"{file.place(('example',))}: example cannot be rendered: {error}")
        return
    if right is None:
        right, wrong = None, "```python\ndef f(x):\n    return None\n```"
        report.say("  the grader on a right answer: not tried, as it would have to be a program (key `example`)")
    try:
        if right is not None:
            verdict = _verdict(grader, right, first.target)
            report.say(f"  the grader on a right answer, {shorten(right)}: {_word(verdict)}")
            if not verdict:
                named = own is not None and own.example is not None
                remedy = "" if named else ", or say with `example` how a right answer reads, as in `Answer: {{target}}`"
                report.fail(f"{place}: grader {grader.name} takes a right answer for wrong: mend it{remedy}")
        if wrong is not None:
            verdict = _verdict(grader, wrong, first.target)
            report.say(f"  the grader on a wrong answer, {shorten(wrong)}: {_word(verdict)}")
            if verdict:
                report.fail(f"{place}: grader {grader.name} takes another problem's answer for right")
        for text in ("I do not know.", "?"):
            if _verdict(grader, text, first.target):
                report.fail(f"{place}: grader {grader.name} takes {text!r} for right")
    except SandboxError as error:
        report.say(f"  note: the grader was not tried: {error}")
    except TaskError as error:
        report.fail(f"{place}: {error}")


def _another(grader: "Grader", target: Any) -> str:
    """An answer that is not the target, where all problems have the same one."""
    return ("B" if target == "A" else "A") if grader.name == "choice" else "7003"


def _verdict(grader: "Grader", text: str, target: Any) -> bool:
    answer = grader.extract(text, finished=True)
    return answer is not None and grader.correct(answer, target)


def _word(verdict: bool) -> str:
    return "right" if verdict else "wrong"
