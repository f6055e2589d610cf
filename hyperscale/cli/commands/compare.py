"""``hyperscale compare``: holds one run against another, problem by problem."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.errors import ResultsError
from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from hyperscale.analysis.run_comparison import Comparison
    from hyperscale.results.folder import Run


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of the run to compare with.")],
    b: Annotated[Path, typer.Argument(help="Folder of the other run; the same one to compare its methods.")],
    axis: Annotated[str, typer.Option(help="Cost axis.")] = "kv_reads",
    pair: Annotated[
        str | None,
        typer.Option(help="Methods of B and A to compare: dms:vanilla. [equal ones; of one run, all with vanilla]"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every W, not the smallest and the largest alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON (docs/machines.md).")] = False,
) -> None:
    """Compare two runs problem by problem, with intervals: at equal W and L, and at equal cost."""
    from hyperscale.analysis.margins import parse_pairs
    from hyperscale.analysis.run_comparison import compare_points
    from hyperscale.planning.run_state import unfinished_notes

    first, second = _read(a), _read(b)
    pairs = parse_pairs(pair) if pair else None
    same = first.folder.resolve() == second.folder.resolve()
    found = compare_points(first.points(), second.points(), axis, pairs, same=same)
    if as_json:
        from hyperscale.cli.display import json_events

        values = {"schema": json_events.SCHEMA, "a": str(a), "b": str(b), "axis": axis}
        json_events.write_json_line(sys.stdout, values | {"comparisons": [_values(each) for each in found]})
        return
    from hyperscale.cli.display import comparison_tables

    console = make_console()
    # Runs in different places may share a name, which would tell nobody which is which.
    names = (first.name, second.name) if same or first.name != second.name else (first.folder, second.folder)
    print_line(console, "A: {}\nB: {}".format(*names))
    runs = [first] if same else [first, second]
    print_notes(console, [note for run in runs for note in run.notes] + unfinished_notes(runs))
    comparison_tables.print_comparisons(found, console, everything=everything)


def _read(folder: Path) -> "Run":
    from hyperscale import results

    runs = results.read(folder)
    if len(runs) > 1:
        raise ResultsError(f"{folder} holds {len(runs)} runs: pass the folder of one, e.g. {runs[0].folder}")
    if not runs[0].samples:
        raise ResultsError(f"{folder} holds no finished chain yet: nothing to compare")
    return runs[0]


def _values(comparison: "Comparison") -> dict[str, Any]:
    """A comparison for programs."""
    return {
        **{"task": comparison.task, "a": _arm(comparison.a), "b": _arm(comparison.b)},
        "at_equal_size": [pair.row() for pair in comparison.at_equal_size],
        "at_equal_cost": [pair.row() for pair in comparison.at_equal_cost],
    }


def _arm(arm: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(arm).items() if name != "length_invariant"}
