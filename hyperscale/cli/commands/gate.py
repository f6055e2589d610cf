"""``hyperscale gate``: holds results against a baseline, or writes one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperscale.cli.arguments import check_output
from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from hyperscale.results.folder import Run

REGRESSION = 1  # the exit code; `hyperscale.cli.main` lets no other command end with it


def gate(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    baseline: Annotated[Path | None, typer.Option(help="Baseline to hold the results against.")] = None,
    write_baseline: Annotated[Path | None, typer.Option(help="Make a baseline of the results and stop.")] = None,
    tolerance: Annotated[float, typer.Option(help="Accepted fall of an accuracy or margin, in points.")] = 2.0,
    confidence: Annotated[float, typer.Option(help="Confidence that all intervals hold at once, in percent.")] = 99.0,
    reads_tolerance: Annotated[float, typer.Option(help="Accepted rise of a point's KV reads, in percent.")] = 10.0,
    peak_tolerance: Annotated[float, typer.Option(help="Accepted rise of a point's peak, in percent.")] = 10.0,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML to write.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Markdown to append to, e.g. $GITHUB_STEP_SUMMARY.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every row, not only those worth a look.")] = False,
) -> None:
    """Fail (exit 1) if an accuracy or margin fell, or a cost rose, by more than the tolerance and more than noise.

    Whatever keeps the gate from a verdict is exit 2.
    """
    if (baseline is None) == (write_baseline is None):
        raise ConfigError("pass --baseline FILE to compare with, or --write-baseline FILE to make one")
    read = [baseline] if baseline is not None else []
    for option, path in (("--write-baseline", write_baseline), ("--junit", junit), ("--summary", summary)):
        check_output(option, path, *read)
    from hyperscale import gate as gates
    from hyperscale import results
    from hyperscale.gate import reports

    console = make_console()
    compare = partial(
        gates.compare,
        tolerance=tolerance,
        confidence=confidence,
        reads_tolerance=reads_tolerance,
        peak_tolerance=peak_tolerance,
    )
    if write_baseline is not None:
        runs = results.read(folder)
        record = gates.record_runs(runs)
        compare(record, record)  # what it would refuse is no baseline
        gates.write_baseline(record, write_baseline)
        print_notes(console, _notes(runs))
        size = write_baseline.stat().st_size / 1024
        print_line(console, f"wrote {write_baseline} ({size:,.0f} KiB): {reports.summarize_record(record)}")
        return
    assert baseline is not None, "checked above"
    try:
        before = gates.read_baseline(baseline)
        runs = results.read(folder)
        comparison = compare(before, gates.record_runs(runs))
        comparison = replace(comparison, notes=(*_notes(runs), *comparison.notes))
    except HyperscaleError as error:
        if junit:
            reports.save(junit, reports.junit_error(str(error)))
        if summary:
            reports.save(summary, reports.markdown_error(str(error)).encode(), append=True)
        raise
    # The files first: whoever reads them learns the verdict even where the table cannot be printed.
    if junit:
        reports.save(junit, reports.junit(comparison))
    if summary:
        reports.save(summary, reports.markdown(comparison).encode(), append=True)
    reports.print_comparison(comparison, console, every)
    if comparison.failures:
        raise typer.Exit(REGRESSION)


def _notes(runs: "Sequence[Run]") -> list[str]:
    """What was left out of the results' chains, and which of them are copies."""
    from hyperscale.gate.from_runs import find_copies

    return [*(note for run in runs for note in run.notes), *find_copies(runs)]
