"""``hyperscale plot``: draws accuracy against cost, and prints margins."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli import arguments
from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.errors import ConfigError, ResultsError
from hyperscale.utils.printing import print_line


def plot(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures. [the same folder]")] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            help="Cost axes with commas between them: kv_reads, peak_kv, peak_bytes, tokens, seconds, read_bytes; or "
            "all. [the budget's, and kv_reads or peak_kv]"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Tasks to draw, with commas between them; niah_single is all its lengths. [all]"),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Files to write: png, svg, and csv for the numbers behind the pictures.")
    ] = "png",
    margins: Annotated[
        str | None, typer.Option(help="Margins to give: dms:vanilla,dms:window. [every method over vanilla]")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Published results to show beside the run's: paper, or a folder.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=100, max=100_000, help="Resamples of the problems for bands and intervals.")
    ] = 1000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print points and margins as one line of JSON (docs/machines.md).")
    ] = False,
) -> None:
    """Say in words what results show, draw accuracy against two costs, and print margins with their intervals."""
    from hyperscale import frames
    from hyperscale.analysis.margins import parse_pairs, to_frame
    from hyperscale.analysis.published import load
    from hyperscale.cli.display import answer_text, margin_tables
    from hyperscale.planning.run_state import unfinished_notes
    from hyperscale.report.plots.write import FORMATS, draw_analysis
    from hyperscale.results.points import COSTS, check_axis

    console = make_console()
    axes = list(COSTS) if axis == "all" else arguments.names("--axis", axis)
    for name in axes or ():
        check_axis(name)
    kinds = arguments.names("--format", formats) or []
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise ConfigError(f"--format {unknown[0]!r}: choose of {', '.join(FORMATS)}, with commas between them")
    pairs = parse_pairs(margins) if margins else None
    published_results = load(reference) if reference else None
    loaded = frames.load(folder)
    runs, chains = loaded.runs, loaded.n_chains
    if not chains:
        raise ResultsError(f"{folder} holds no finished chain yet: nothing to draw")
    if not as_json:
        console.print(f"{chains:,} chains of {len(runs)} run{'s' * (len(runs) > 1)}", highlight=False)
        print_notes(console, (note for run in runs for note in run.notes))
    if task is not None:
        loaded = loaded.of_tasks(arguments.names("--task", task) or ())
    if axes is None:  # the answer is on the budget's axis, which comes first
        axes = [loaded.axis, next(name for name in ("kv_reads", "peak_kv") if name != loaded.axis)]
    analysis = loaded.analyse(axes, pairs, resamples)
    unfinished = unfinished_notes(runs)
    if not as_json:
        answer_text.print_answers(analysis.answers, console, unfinished)
    files: list[str] = []

    def report_file(path: Path) -> None:
        files.append(str(path))
        if not as_json:
            print_line(console, f"wrote {path}")

    draw_analysis(analysis, out or folder, published_results, report_file, formats=kinds, notes=unfinished)
    if as_json:
        from hyperscale.cli.display import json_events

        values = {
            "schema": json_events.SCHEMA,
            "runs": len(runs),
            "chains": chains,
            "files": files,
            "points": [point.row() for point in analysis.points],
            "answers": json_events.answers_as_values(analysis.answers),
            "margins": to_frame(analysis.margins).to_dict("records"),
        }
        json_events.write_json_line(sys.stdout, values)
        return
    # A table of all axes would be long: it has two, unless axes were named.
    table_axes = axes[:2] if axis in (None, "all") else axes
    rows = [margin for margin in analysis.margins if margin.axis in table_axes]
    margin_tables.print_margins(rows, console, published_results)
