"""A comparison as a table for the console, as Markdown and as JUnit XML."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import Record
from hyperscale.gate.comparison import Comparison, Row

TITLE = "hyperscale gate"
_HEAD = ("model", "task", "method", "W-L-CR or margin", "baseline", "now", "change", "interval", "reads", "verdict")
_LEFT = 4
_NOTES = 12
_ROOM = 100  # columns of a console below which some of the table's are left out
_WIDE = ("baseline", "now", "reads")


def headline(found: Comparison) -> str:
    """One line that says how it went."""
    points = sum(row.CR is not None for row in found.rows)
    counted = f"{points} accuracies and {len(found.rows) - points} margins"
    rule = f"tolerance {found.tolerance:g} points, simultaneous {found.confidence:g} % intervals over problems"
    if found.fell:
        return f"FAILED: {len(found.fell)} of {counted} fell ({rule})"
    return f"passed: none of {counted} fell ({rule})"


def selection(found: Comparison) -> list[Row]:
    """The rows worth a look: those that fell, every margin, and of each arm the point that changed for the worst."""
    worst: dict[tuple[str, str, str, float], Row] = {}
    for row in found.rows:
        if row.CR is not None:
            arm = (row.model, row.task, row.method, row.CR)
            worst[arm] = min(worst.get(arm, row), row, key=lambda row: row.change)
    kept = {id(row) for row in worst.values()}
    rows = [row for row in found.rows if row.verdict == "fell" or row.CR is None or id(row) in kept]
    return sorted(rows, key=lambda row: row.verdict != "fell")


def console(found: Comparison, out: Console, every: bool = False) -> None:
    """Print the table, the notes and the headline."""
    rows = list(found.rows) if every else selection(found)
    table = Table(title="Changes from the baseline, points of accuracy", title_justify="left", box=None, pad_edge=False)
    skipped = _dull(found) | ({i for i, name in enumerate(_HEAD) if name in _WIDE} if out.width < _ROOM else set())
    for i, name in enumerate(_HEAD):
        if i not in skipped:
            table.add_column(name, no_wrap=True, justify="left" if i < _LEFT else "right")
    for row in rows:
        style = "bold red" if row.verdict == "fell" else None
        table.add_row(*(text for i, text in enumerate(_texts(row)) if i not in skipped), style=style)
    out.print(table)
    if len(rows) < len(found.rows):
        print_line(out, f"{len(found.rows) - len(rows)} more rows with --all")
    for line in _notes(found):
        print_line(out, f"note: {line}")
    print_line(out, headline(found))


def print_line(out: Console, text: str) -> None:
    """Print a line as it is, however long."""
    out.print(text, highlight=False, soft_wrap=True)


def contents(record: Record) -> str:
    """What a baseline holds, in one line."""
    parts = []
    for name, task in record.tasks.items():
        arms = [arm for arm in record.arms if arm.task == name]
        points = sum(len(cut.accuracy) for arm in arms for cut in arm.cuts)
        parts.append(f"{name} ({len(task.problems)} problems, {points} points)")
    return ", ".join(parts)


def markdown(found: Comparison) -> str:
    """The comparison as Markdown, for a pull request or a job's summary."""
    skipped = _dull(found)
    shown = [i for i in range(len(_HEAD)) if i not in skipped]
    lines = [f"### {TITLE}: {'❌' if found.fell else '✅'} {_escape(headline(found))}", ""]
    lines.append("| " + " | ".join(_HEAD[i] for i in shown) + " |")
    lines.append("|" + "|".join("---" if i < _LEFT else "--:" for i in shown) + "|")
    for row in selection(found):
        texts = [_escape(text) for text in _texts(row)]
        mark = "**" if row.verdict == "fell" else ""
        lines.append("| " + " | ".join(f"{mark}{texts[i]}{mark}" if texts[i] else "" for i in shown) + " |")
    lines += ["", *(f"- {_escape(line)}" for line in _notes(found)), ""]
    return "\n".join(lines) + "\n"


def markdown_error(message: str) -> str:
    """A comparison that could not be made, as Markdown."""
    return f"### {TITLE}: ⚠️ cannot compare\n\n{_escape(message)}\n\n"


def junit(found: Comparison) -> bytes:
    """The comparison as JUnit XML: a case for every row, a failure for each that fell, skipped where there is none."""
    cases = []
    for row in found.rows:
        kind = f"accuracy {row.name}" if row.CR is not None else f"{row.name} over vanilla"
        case = ElementTree.Element("testcase", classname=_clean(f"{row.model}.{row.task}.{row.method}"), name=kind)
        line = _line(row)
        if row.verdict == "fell":
            failure = ElementTree.SubElement(case, "failure", message=_clean(line), type="regression")
            failure.text = _clean(f"{line}; {headline(found)}")
        elif row.verdict == "NA":
            ElementTree.SubElement(case, "skipped", message="the frontiers have no common costs")
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(line)
        cases.append(case)
    return _suite(cases, failures=len(found.fell), skipped=sum(row.verdict == "NA" for row in found.rows))


def junit_error(message: str) -> bytes:
    """A comparison that could not be made, as JUnit XML."""
    case = ElementTree.Element("testcase", classname=TITLE, name="comparison with the baseline")
    ElementTree.SubElement(case, "error", message=_clean(message), type="input")
    return _suite([case], errors=1)


def save(path: Path, data: bytes, append: bool = False) -> None:
    """Write a report.

    Raises:
        ResultsError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if append else "wb") as file:
            file.write(data)
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


def _dull(found: Comparison) -> set[int]:
    """Columns that say nothing: the model, where there is one."""
    return {0} if len({row.model for row in found.rows}) == 1 else set()


def _texts(row: Row) -> tuple[str, ...]:
    known = row.verdict != "NA"
    return (
        row.model,
        row.task,
        row.method,
        row.name,
        _number(row.old),
        _number(row.new),
        f"{row.change:+.1f}" if known else "NA",
        f"[{row.low:+.1f}, {row.high:+.1f}]" if known else "",
        "" if row.reads is None else f"×{row.reads:.2f}",
        row.verdict,
    )


def _line(row: Row) -> str:
    if row.verdict == "NA":
        return "NA"
    ends = f"{row.change:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
    return f"{_number(row.old)} in the baseline, now {_number(row.new)}: {ends} points of accuracy"


def _number(value: float) -> str:
    return "NA" if value != value else f"{round(value, 1) + 0.0:.1f}"  # no -0.0


def _notes(found: Comparison) -> list[str]:
    more = len(found.notes) - _NOTES
    return [*found.notes[:_NOTES], *([f"and {more} more differences"] if more > 0 else [])]


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
