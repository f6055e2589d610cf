"""``hyperscale show`` and ``hyperscale runs``: what is in a run's folder, and which runs there are."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hyperscale.cli.display.console import make_console, print_notes


def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs to show together.")],
    axis: Annotated[str | None, typer.Option(help="Cost axis of the frontiers. [the budget's]")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every point, not those on frontiers alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON (docs/machines.md).")] = False,
) -> None:
    """Show a run: how far it is, the answer in words, and its points. Reads only; an unfinished run may go on."""
    from hyperscale import frames
    from hyperscale.planning.run_state import state_of, unfinished_notes

    loaded = frames.load(folder)
    runs, axis = loaded.runs, axis or loaded.axis
    answers = loaded.answers(axis)
    points = loaded.measured_points
    states = [state_of(run) for run in runs]
    if as_json:
        from hyperscale.cli.display import json_events

        about = [
            {"folder": str(run.folder), "finished": state.finished, "chains": state.done, "planned": state.planned}
            | {"arms": [vars(arm) for arm in state.arms]}
            for run, state in zip(runs, states, strict=True)
        ]
        values = {"schema": json_events.SCHEMA, "runs": about, "answers": json_events.answers_as_values(answers)}
        rows = [point.row() for point in points] + [mean.row() for mean in loaded.group_means]
        json_events.write_json_line(sys.stdout, values | {"points": rows})
        return
    from hyperscale.cli.display import answer_text, result_tables, run_tables

    console = make_console()
    for run, state in zip(runs, states, strict=True):
        run_tables.print_run(run, state, console)
    print_notes(console, (note for run in runs for note in run.notes))
    if not points:
        console.print("no finished chain yet", highlight=False)
        return
    answer_text.print_answers(answers, console, unfinished_notes(runs))
    if everything:
        result_tables.print_points(points, console, axis)
    else:
        result_tables.print_frontiers(points, axis, console, hint="--all shows every point")
    result_tables.print_group_means(loaded.group_means, console, axis)


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each run.")] = False,
) -> None:
    """List the runs in a folder, the newest first: model, methods, chains done, and the best accuracy on each task."""
    from hyperscale.cli.display import run_tables

    console = make_console(quiet=as_json)
    for summary in run_tables.summarise_runs(folder):
        if as_json:
            from hyperscale.cli.display import json_events

            json_events.write_json_line(sys.stdout, {"schema": json_events.SCHEMA, **summary})
        else:
            run_tables.print_summary(summary, console)
