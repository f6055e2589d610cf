"""Tables of margins, those of published results beside them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from hyperscale.analysis.margins import Interval, Margin
from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.results.intervals import MIN_PROBLEMS

if TYPE_CHECKING:
    from hyperscale.analysis.published import Reference

AXES = ("kv_reads", "peak_kv")
"""Axes of the table at a run's end."""


def print_margins(margins: Sequence[Margin], console: Console, reference: "Reference | None" = None) -> None:
    """Print margins, those of a reference beside them, and why some have no value or no interval."""
    if not margins:
        return
    # What all rows share stands in the title and has no column.
    several_models = len({margin.model for margin in margins}) > 1
    one_base = len({margin.b for margin in margins}) == 1
    over = f" over {margins[0].b}" if one_base else ""
    of = "" if several_models else f" ({margins[0].model})"
    has_reference = reference is not None and any(format_reference(margin, reference) != NOTHING for margin in margins)
    table = make_table(
        f"Margins{over}{of}, points, 95 % interval",
        (*(("model",) if several_models else ()), "task", "method" if one_base else "margin", "axis"),
        ("linear axis", "log2 axis", *((reference.name,) if reference and has_reference else ())),
    )
    task = ""
    for margin in margins:
        if task not in ("", margin.task):
            table.add_section()
        task = margin.task
        name = margin.a if one_base else f"{margin.a} − {margin.b}"
        table.add_row(
            *((margin.model,) if several_models else ()),
            *(margin.task, name, margin.axis),
            format_margin(margin.linear, margin.linear_ci),
            format_margin(margin.log2, margin.log2_ci),
            *((format_reference(margin, reference),) if reference and has_reference else ()),
        )
    print_table(table, console, ("linear axis", "model"))
    for note in (*_notes(margins), *(_reference_notes(reference, margins, has_reference) if reference else ())):
        console.print(note, highlight=False)


def format_margin(value: float, interval: Interval) -> str:
    """A margin and its interval: ``+1.2 [-0.3, +2.4]``; ``NA`` without a value, the value alone without an interval."""
    if math.isnan(value):
        return "NA"
    return f"{value:+.1f}" if math.isnan(interval[0]) else f"{value:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def format_reference(margin: Margin, reference: "Reference") -> str:
    """A reference's values of a margin: that of the same model, or of each of its models with slashes between them."""
    values = reference.margin(margin.task, margin.a, margin.b, margin.axis)
    if margin.model in values:
        return f"{values[margin.model]:+.1f}"
    return " / ".join(f"{value:+.1f}" for value in values.values()) or NOTHING


def _notes(margins: Sequence[Margin]) -> list[str]:
    """Why some margins have no value or no interval."""
    notes = []
    small = {margin.task: margin.n_problems for margin in margins if 0 < margin.n_problems < MIN_PROBLEMS}
    if small:
        counts = ", ".join(f"{task} has {n}" for task, n in small.items())
        notes.append(f"No intervals with fewer than {MIN_PROBLEMS} problems ({counts}): such margins are mostly noise.")
    if any(margin.n_problems == 0 for margin in margins):
        notes.append("NA where two methods have no problem in common.")
    if any(margin.n_problems and math.isnan(margin.linear) for margin in margins):
        notes.append("NA where every point of one method costs as much as or more than every point of the other.")
    if any(
        margin.has_enough_problems and not math.isnan(margin.linear) and math.isnan(margin.linear_ci[0])
        for margin in margins
    ):
        notes.append("No interval where the two frontiers meet in fewer than half of the resamples.")
    return notes


def _reference_notes(reference: "Reference", margins: Sequence[Margin], has_reference: bool) -> list[str]:
    """Where the reference's values come from; if it has none of these margins, its own ones."""
    tasks = list(dict.fromkeys(entry.task for entry in reference.margins))
    models = " / ".join(dict.fromkeys(entry.model for entry in reference.margins))
    if has_reference:
        return [f"{reference.name}: published values, without intervals, of the same model or of {models}."]
    lines = _published_margins(reference, margins)
    return [
        f"No margin here is in {reference.name}, whose tasks are {', '.join(tasks)}." + " Its own:" * bool(lines),
        *lines,
    ]


def _published_margins(reference: "Reference", margins: Sequence[Margin]) -> list[str]:
    """A reference's own margins between the methods at hand, a line each."""
    # Of the same methods on the same axis, whatever the task and the model.
    pairs = {(margin.a, margin.b, margin.axis) for margin in margins}
    lines: dict[str, list[str]] = {}
    for entry in reference.margins:
        if (entry.a, entry.b, entry.axis) in pairs:
            key = f"{entry.task}, {entry.a} − {entry.b}, {entry.axis}"
            lines.setdefault(key, []).append(f"{entry.value:+.1f} ({entry.model})")
    return [f"  {key}: {', '.join(values)}" for key, values in lines.items()]
