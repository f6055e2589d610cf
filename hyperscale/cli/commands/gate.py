"""``hyperscale gate``: holds results against a baseline, or writes one."""

from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli.display.console import make_console
from hyperscale.errors import ConfigError, HyperscaleError

REGRESSION = 1  # the exit code


def gate(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    baseline: Annotated[Path | None, typer.Option(help="Baseline to hold the results against.")] = None,
    write_baseline: Annotated[Path | None, typer.Option(help="Make a baseline of the results and stop.")] = None,
    tolerance: Annotated[float, typer.Option(help="Accepted fall of an accuracy or margin, in points.")] = 2.0,
    confidence: Annotated[float, typer.Option(help="Confidence that all intervals hold at once, in percent.")] = 99.0,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML to write.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Markdown to append to, e.g. $GITHUB_STEP_SUMMARY.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every row, not only those worth a look.")] = False,
) -> None:
    """Fail (exit 1) if an accuracy or margin fell from a baseline by more than the tolerance and more than noise."""
    if (baseline is None) == (write_baseline is None):
        raise ConfigError("pass --baseline FILE to compare with, or --write-baseline FILE to make one")
    from hyperscale import gate as gates
    from hyperscale import results
    from hyperscale.gate import reports

    console = make_console()
    if write_baseline is not None:
        record = gates.record_runs(results.read(folder))
        gates.write_baseline(record, write_baseline)
        size = write_baseline.stat().st_size / 1024
        reports.print_line(console, f"wrote {write_baseline} ({size:,.0f} KiB): {reports.summarize_record(record)}")
        return
    assert baseline is not None, "checked above"
    try:
        before = gates.read_baseline(baseline)
        comparison = gates.compare(before, gates.record_runs(results.read(folder)), tolerance, confidence)
    except HyperscaleError as error:
        if junit:
            reports.save(junit, reports.junit_error(str(error)))
        if summary:
            reports.save(summary, reports.markdown_error(str(error)).encode(), append=True)
        raise
    reports.print_comparison(comparison, console, every)
    if junit:
        reports.save(junit, reports.junit(comparison))
    if summary:
        reports.save(summary, reports.markdown(comparison).encode(), append=True)
    if comparison.falls:
        raise typer.Exit(REGRESSION)
