"""Margins as a table for the console and as rows of ``margins.csv``."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hyperscale.analysis.bootstrap import MIN_PROBLEMS, make_bootstraps
from hyperscale.analysis.margins import Interval, Margin, compute_margins
from hyperscale.cli.display.tables import STYLE
from hyperscale.results.points import Cell

if TYPE_CHECKING:
    from hyperscale.analysis.published import Reference

AXES = ("kv_reads", "peak_kv")  # of the table at a run's end
NONE = "·"  # no published value


def margins(measured: Sequence[Cell], console: Console) -> None:
    """Print each method's margin over vanilla per model and task, on reads and on peak; nothing without vanilla."""
    show(compute_margins(make_bootstraps(measured).values(), axes=AXES), console)


def show(found: Sequence[Margin], console: Console, reference: "Reference | None" = None) -> None:
    """Print margins, those of a reference beside them, and what keeps some from having a value or an interval."""
    if not found:
        return
    several = len({each.model for each in found}) > 1
    one = len({each.b for each in found}) == 1
    over = f" over {found[0].b}" if one else ""
    of = "" if several else f" ({found[0].model})"
    matched = reference is not None and any(published(each, reference) != NONE for each in found)
    table = Table(title=f"Margins{over}{of}, points, 95 % interval", **STYLE)
    for name in (*(("model",) if several else ()), "task", "method" if one else "margin", "axis"):
        table.add_column(name, no_wrap=True)
    for name in ("linear axis", "log2 axis", *((reference.name,) if reference and matched else ())):
        table.add_column(name, justify="right", no_wrap=True)
    task = ""
    for each in found:
        if task not in ("", each.task):
            table.add_section()
        task = each.task
        names = (*((each.model,) if several else ()), each.task, each.a if one else f"{each.a} − {each.b}", each.axis)
        beside = (published(each, reference),) if reference and matched else ()
        table.add_row(*names, text(each.linear, each.linear_ci), text(each.log2, each.log2_ci), *beside)
    console.print(table)
    for note in (*_notes(found), *(_about(reference, found, matched) if reference else ())):
        console.print(note, highlight=False, soft_wrap=True)


def text(value: float, interval: Interval) -> str:
    """A margin and its interval: ``+1.2 [-0.3, +2.4]``; ``NA`` without a value, the value alone without an interval."""
    if math.isnan(value):
        return "NA"
    return f"{value:+.1f}" if math.isnan(interval[0]) else f"{value:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def published(margin: Margin, reference: "Reference") -> str:
    """A reference's values of a margin: that of the same model, or of each of its models with slashes between them."""
    values = reference.margin(margin.task, margin.a, margin.b, margin.axis)
    if margin.model in values:
        return f"{values[margin.model]:+.1f}"
    return " / ".join(f"{value:+.1f}" for value in values.values()) or NONE


def _notes(found: Sequence[Margin]) -> list[str]:
    notes = []
    if few := {each.task: each.n_problems for each in found if 0 < each.n_problems < MIN_PROBLEMS}:
        counts = ", ".join(f"{task} has {n}" for task, n in few.items())
        notes.append(f"No intervals of fewer than {MIN_PROBLEMS} problems ({counts}): such margins say little.")
    if any(each.n_problems == 0 for each in found):
        notes.append("NA where two methods have no problem in common.")
    if any(each.n_problems and math.isnan(each.linear) for each in found):
        notes.append("NA where every point of one method costs more than every point of the other.")
    if any(each.enough and not math.isnan(each.linear) and math.isnan(each.linear_ci[0]) for each in found):
        notes.append("No interval where the two frontiers meet in fewer than half of the resamples.")
    return notes


def _about(reference: "Reference", found: Sequence[Margin], matched: bool) -> list[str]:
    tasks = list(dict.fromkeys(each.task for each in reference.margins))
    models = " / ".join(dict.fromkeys(each.model for each in reference.margins))
    if matched:
        return [f"{reference.name}: published values, without intervals, of the same model or of {models}."]
    lines = _own(reference, found)
    return [
        f"No margin here is in {reference.name}, whose tasks are {', '.join(tasks)}." + " Its own:" * bool(lines),
        *lines,
    ]


def _own(reference: "Reference", found: Sequence[Margin]) -> list[str]:
    """A reference's own margins between the methods at hand, a line each."""
    wanted = {(each.a, each.b, each.axis) for each in found}
    lines: dict[str, list[str]] = {}
    for each in reference.margins:
        if (each.a, each.b, each.axis) in wanted:
            key = f"{each.task}, {each.a} − {each.b}, {each.axis}"
            lines.setdefault(key, []).append(f"{each.value:+.1f} ({each.model})")
    return [f"  {key}: {', '.join(values)}" for key, values in lines.items()]
