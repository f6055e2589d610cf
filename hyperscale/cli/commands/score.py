"""``hyperscale score``: grades finished chains again, or takes another strategy."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperscale.cli import arguments
from hyperscale.cli.display.console import make_console, print_notes
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.utils.hub import silence_transformers
from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from hyperscale.results.points import MeasuredPoint


def score(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="name=value",
            help="Data of a task, where they are no longer where the run had them: PATH or task=PATH; repeatable.",
        ),
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(help="For programs the model wrote: auto, bwrap, unshare or none. [auto]")
    ] = None,
    vote: Annotated[
        str | None,
        typer.Option(
            help="Instead of grading, choose how W chains make one verdict: majority, pass@k, pass@all, mean@k, "
            "best-of-n, or task for each task's own."
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(help="With --vote best-of-n: logprob, or folder or hub id of a reward model. [logprob]"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="With a reward model: cpu, cuda or cuda:N. [cpu]")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each run (docs/machines.md).")
    ] = False,
) -> None:
    """Grade a run's chains again with today's graders, or make its points with another strategy; generates nothing."""
    from hyperscale import results
    from hyperscale.cli.display import result_tables
    from hyperscale.results import revote
    from hyperscale.scoring.voting.strategies import LOGPROB

    if vote is None and (scorer is not None or device is not None):
        raise ConfigError("--scorer and --device go with --vote best-of-n")
    files = arguments.pairs("--data", data) or {}
    if vote is None:
        _grade(folder, sandbox or "auto", files, as_json)
        return
    if sandbox is not None:
        raise ConfigError("--sandbox goes without --vote: with it, nothing is graded again")
    console = make_console(quiet=as_json)
    if scorer is not None:
        silence_transformers()
    strategy = revote.choose(vote, scorer)
    if device is not None and scorer in (None, LOGPROB):
        raise ConfigError("--device is where a reward model runs: it goes with --vote best-of-n --scorer PATH")
    name = strategy or "each task's own"
    for path in results.folders(folder):
        before = [] if as_json else _points_so_far(path)
        with _progress(console, "scoring") as step:
            points = revote.revote(path, vote, scorer, device=device or "cpu", data=files, step=step)
        print_line(console, f"{path}: {len(points):,} points with the strategy {name}; rebuilt {results.POINTS}")
        if not as_json:
            result_tables.print_vote_change(before, points, console)
        if as_json:
            _print_json({"folder": str(path), "vote": strategy, "points": len(points)})


def _points_so_far(folder: Path) -> "list[MeasuredPoint]":
    """The points with the vote that a run has; none where they cannot be made, which is for the new vote to mend."""
    from hyperscale import results

    try:
        (run,) = results.read(folder)
        return run.points()
    except HyperscaleError:
        return []


def _grade(folder: Path, sandbox: str, data: dict[str, str], as_json: bool) -> None:
    from hyperscale import results
    from hyperscale.analysis.answer_shares import answer_notes
    from hyperscale.results import regrade

    console = make_console(quiet=as_json)
    for path in results.folders(folder):
        with _progress(console, "grading") as step:
            result = regrade.regrade(path, step, sandbox, data)
        print_notes(console, [*result.notes, *answer_notes(result.points)])
        print_line(
            console,
            f"{path}: graded {result.chains:,} chains; {result.answers:,} have another answer than before, "
            f"{result.verdicts:,} another verdict; rebuilt {results.POINTS}",
        )
        if as_json:
            counts = {"chains": result.chains, "answers": result.answers, "verdicts": result.verdicts}
            _print_json({"folder": str(path), **counts, "points": len(result.points)})


def _print_json(values: dict[str, Any]) -> None:
    from hyperscale.cli.display import json_events

    json_events.write_json_line(sys.stdout, {"schema": json_events.SCHEMA, **values})


@contextmanager
def _progress(console: "Console", text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; the function it gives takes the number of chains done and the number in all."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(text, total=None)
        yield lambda completed, total: progress.update(bar, completed=completed, total=total)
