"""Shows a comparison: as a table for the console, as Markdown and as JUnit XML."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import AXES, GateRecord
from hyperscale.gate.comparison import BAD, Comparison, ComparisonRow
from hyperscale.utils.files import append_whole, write_atomic
from hyperscale.utils.printing import print_line
from hyperscale.utils.sorting import natural_order

TITLE = "hyperscale gate"
_HEAD = (
    *("model", "task", "method", "W-L-CR or margin", "baseline", "now", "change", "interval", "reads", "peak"),
    "verdict",
)
_LEFT = 4  # columns that are aligned left
_NOTES = 12  # that are listed
_FULL_WIDTH = 100  # of a console; below it the columns in `_WIDE` are left out
_WIDE = ("baseline", "now", "reads", "peak")


def headline(comparison: Comparison) -> str:
    """One line: whether the gate passes, and by which rule."""
    points = sum(row.CR is not None for row in comparison.rows)
    counts = f"{points} accuracies and {len(comparison.rows) - points} margins"
    rule = (
        f"tolerance {comparison.tolerance:g} points, simultaneous {comparison.confidence:g} % intervals over problems"
    )
    reads, peak = (f"{comparison.cost_tolerances[axis]:g} %" for axis in AXES)
    rule += f"; costs: {reads} of reads, {peak} of peak"
    if comparison.failures:
        rose = len(comparison.failures) - len(comparison.falls)
        costs = f", and {rose} points cost more" if rose else ""
        return f"FAILED: {len(comparison.falls)} of {counts} fell{costs} ({rule})"
    return f"passed: none of {counts} fell, and no point costs more ({rule})"


def selection(comparison: Comparison) -> list[ComparisonRow]:
    """The rows to show: those that fell, every margin, and of each arm the point that changed for the worst."""
    worst: dict[tuple[str, str, str, str], ComparisonRow] = {}
    for row in comparison.rows:
        if row.CR is not None:
            arm = (row.model, row.task, row.method, row.name.rpartition("-")[2])  # a margin has no CR: it unites all
            worst[arm] = min(worst.get(arm, row), row, key=lambda row: row.change)
    worst_rows = {id(row) for row in worst.values()}
    rows = [row for row in comparison.rows if row.verdict in BAD or row.CR is None or id(row) in worst_rows]

    def place(row: ComparisonRow) -> tuple[Any, ...]:
        return (BAD.index(row.verdict) if row.verdict in BAD else len(BAD)), natural_order(row.task), row.model

    return sorted(rows, key=place)


def print_comparison(comparison: Comparison, out: Console, every: bool = False) -> None:
    """Print the table, the notes and the headline."""
    # Columns that do not fit are left out whole, as cut numbers would mislead.
    rows = list(comparison.rows) if every else selection(comparison)
    table = Table(title="Changes from the baseline, points of accuracy", title_justify="left", box=None, pad_edge=False)
    omitted = _constant_columns(comparison) | (
        {i for i, name in enumerate(_HEAD) if name in _WIDE} if out.width < _FULL_WIDTH else set()
    )
    for i, name in enumerate(_HEAD):
        if i not in omitted:
            table.add_column(name, no_wrap=True, justify="left" if i < _LEFT else "right")
    for row in rows:
        style = "bold red" if row.verdict in BAD else None
        table.add_row(*(text for i, text in enumerate(_texts(row)) if i not in omitted), style=style)
    out.print(table)
    if len(rows) < len(comparison.rows):
        print_line(out, f"{len(comparison.rows) - len(rows)} more rows with --all")
    for line in _notes(comparison):
        print_line(out, f"note: {line}")
    print_line(out, headline(comparison))


def summarize_record(record: GateRecord) -> str:
    """A record's tasks with their problems and points, in one line."""
    parts = []
    for name, task in record.tasks.items():
        arms = [arm for arm in record.arms if arm.task == name]
        points = sum(len(cut.accuracy) for arm in arms for cut in arm.cuts)
        parts.append(f"{name} ({len(task.problems)} problems, {points} points)")
    return ", ".join(parts)


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, for a pull request or a job's summary."""
    omitted = _constant_columns(comparison)
    columns = [i for i in range(len(_HEAD)) if i not in omitted]
    lines = [f"### {TITLE}: {'❌' if comparison.failures else '✅'} {_escape(headline(comparison))}", ""]
    lines.append("| " + " | ".join(_HEAD[i] for i in columns) + " |")
    lines.append("|" + "|".join("---" if i < _LEFT else "--:" for i in columns) + "|")
    for row in selection(comparison):
        texts = [_escape(text) for text in _texts(row)]
        mark = "**" if row.verdict in BAD else ""
        lines.append("| " + " | ".join(f"{mark}{texts[i]}{mark}" if texts[i] else "" for i in columns) + " |")
    lines += ["", *(f"- {_escape(line)}" for line in _notes(comparison)), ""]
    return "\n".join(lines) + "\n"


def markdown_error(message: str) -> str:
    """A comparison that could not be made, as Markdown."""
    return f"### {TITLE}: ⚠️ cannot compare\n\n{_escape(message)}\n\n"


def junit(comparison: Comparison) -> bytes:
    """The comparison as JUnit XML: a case for every row, a failure for each that fell, skipped where there is none."""
    cases = []
    for row in comparison.rows:
        kind = f"accuracy {row.name}" if row.CR is not None else f"{row.name} over vanilla"
        case = ElementTree.Element(
            "testcase", classname=_drop_controls(f"{row.model}.{row.task}.{row.method}"), name=kind
        )
        line = _line(row)
        if row.verdict in BAD:
            failure = ElementTree.SubElement(case, "failure", message=_drop_controls(line), type="regression")
            failure.text = _drop_controls(f"{line}; {headline(comparison)}")
        elif row.verdict == "NA":
            ElementTree.SubElement(case, "skipped", message="the frontiers have no common costs")
        else:
            ElementTree.SubElement(case, "system-out").text = _drop_controls(line)
        cases.append(case)
    return _suite(cases, failures=len(comparison.failures), skipped=sum(row.verdict == "NA" for row in comparison.rows))


def junit_error(message: str) -> bytes:
    """A comparison that could not be made, as JUnit XML."""
    case = ElementTree.Element("testcase", classname=TITLE, name="comparison with the baseline")
    ElementTree.SubElement(case, "error", message=_drop_controls(message), type="input")
    return _suite([case], errors=1)


def save(path: Path, data: bytes, append: bool = False) -> None:
    """Write a report.

    Raises:
        ResultsError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (append_whole if append else write_atomic)(path, data)
    except OSError as error:
        raise ResultsError(f"cannot write the report {path} ({error.strerror}): choose another path") from None


def _suite(cases: Sequence[ElementTree.Element], failures: int = 0, errors: int = 0, skipped: int = 0) -> bytes:
    counts = {"tests": len(cases), "failures": failures, "errors": errors, "skipped": skipped}
    attributes = {"name": TITLE} | {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", attributes)
    ElementTree.SubElement(root, "testsuite", attributes).extend(cases)
    ElementTree.indent(root)
    text = bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return text + b"\n"


def _constant_columns(comparison: Comparison) -> set[int]:
    """Columns that are the same in every row: the model, if there is one."""
    return {0} if len({row.model for row in comparison.rows}) == 1 else set()


def _texts(row: ComparisonRow) -> tuple[str, ...]:
    exists = row.verdict != "NA"
    return (
        row.model,
        row.task,
        row.method,
        row.name,
        _number(row.old),
        _number(row.new),
        f"{row.change:+.1f}" if exists else "NA",
        _interval(row),
        *("" if ratio is None else f"×{ratio:.2f}" for ratio in (row.reads, row.peak)),
        row.verdict,
    )


def _line(row: ComparisonRow) -> str:
    if row.verdict == "NA":
        return "NA"
    ends = " ".join(filter(None, (f"{row.change:+.1f}", _interval(row))))
    line = f"{_number(row.old)} in the baseline, now {_number(row.new)}: {ends} points of accuracy"
    for cost in row.costs:
        if cost.rose:
            line += f"; {cost.axis} ×{cost.ratio:.2f} ({cost.percent:+.0f} %"
            line += ")" if math.isnan(cost.low) else f", [{cost.low:+.0f}, {cost.high:+.0f}])"
    return line


def _interval(row: ComparisonRow) -> str:
    return "" if math.isnan(row.low) else f"[{row.low:+.1f}, {row.high:+.1f}]"


def _number(value: float) -> str:
    return "NA" if value != value else f"{round(value, 1) + 0.0:.1f}"  # no -0.0


def _notes(comparison: Comparison) -> list[str]:
    hidden = len(comparison.notes) - _NOTES
    return [*comparison.notes[:_NOTES], *([f"and {hidden} more differences"] if hidden > 0 else [])]


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _drop_controls(text: str) -> str:
    """The text with a question mark for every character that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
