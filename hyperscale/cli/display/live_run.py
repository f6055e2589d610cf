"""What a person sees of a run: live bars in a terminal, plain lines in a pipe."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from hyperscale.cli.display import margin_tables, plan_tables, result_tables
from hyperscale.cli.display.live_chain import ChainView, printable
from hyperscale.kv.trace import dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.points import MeasuredPoint, table
from hyperscale.results.samples import Sample
from hyperscale.run.observer import Load, Observer
from hyperscale.run.prepare import PreparedRun, Problem
from hyperscale.run.progress import Tally

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress
    from hyperscale.run.verification import Compression

INTERVAL = 10.0
_EXCERPT = 150


class Display(Observer):
    """Shows a run on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.watching = self._live = console.is_terminal
        self._chain_view = ChainView(console)
        self._note = ""
        self._progress: Progress | None = None
        self._tallies: dict[Arm, Tally] = {}
        self._bars: dict[Arm, Any] = {}
        self._spoke = 0.0
        self._introduced = False

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._chain_view.close()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def stage(self, text: str) -> None:
        """See `Observer`."""
        self._chain_view.close()
        if self._progress is None:
            self._console.print(Text(f"{text} …", style="dim"))

    def pilot(self, arm: Arm, done: int, total: int) -> None:
        """See `Observer`."""
        self._note = f"{done}/{total} chains done" if done < total else ""
        if done == total:
            self._chain_view.close()
        elif not self._live and time.monotonic() - self._spoke > INTERVAL:
            self._spoke = time.monotonic()
            if done:
                self._console.print(f"pilot of {arm}: {self._note}", highlight=False)

    def chain_progress(self, arm: Arm, problem: Problem, progress: "ChainProgress") -> None:
        """See `Observer`."""
        if not self._note:  # a chain that will be shown; a pilot has many
            self._introduce(problem)
        self._chain_view.update(str(arm), progress, self._note)

    def planned(self, run: PreparedRun, folder: Path) -> None:
        """See `Observer`."""
        plan_tables.print_plan(run, self._console)

    def opened(self, folder: Path, finished: int) -> None:
        """See `Observer`."""
        kept = f", which has {finished:,} finished chains: resuming" if finished else ""
        self._console.print(Text.assemble("writing to ", (str(folder), "bold"), kept))

    def note(self, text: str) -> None:
        """See `Observer`."""
        self._console.print(Text(f"note: {text}"), soft_wrap=True)

    def shown(self, arm: Arm, problem: Problem, sample: Sample) -> None:
        """See `Observer`."""
        out = self._console
        self._chain_view.close()
        self._introduce(problem)
        answer, right = sample.whole.answer, sample.whole.correct
        verdict = Text(f"{arm}: ", style="bold cyan")
        verdict.append(_excerpt(sample.text, _EXCERPT), style="dim")
        out.print(verdict)
        says = "no answer" if answer is None else f"answer {_excerpt(answer, 40)}"
        reads, peak = sample.whole.kv_reads, sample.whole.peak_kv
        line = Text(f"  {says} ", style="")
        line.append("✓ right" if right else "✗ wrong", style="bold green" if right else "bold red")
        line.append(f" · {sample.tokens:,} tokens · {reads:,.0f} KV reads · peak {peak:,.0f} entries")
        dense = dense_reads(sample.prompt_tokens, sample.tokens)
        if reads and dense > 1.05 * reads:
            line.append(f" ({dense / reads:.1f}× fewer reads than a full cache)", style="green")
        out.print(line)

    def _introduce(self, problem: Problem) -> None:
        """Print the problem that first chains are shown of."""
        if self._introduced:
            return
        self._introduced = True
        level = "" if problem.doc.level is None else f", level {problem.doc.level}"
        self._console.print(Text.assemble("\n", (problem.task.name, "bold"), f", problem {problem.doc.id}{level}"))
        self._console.print(Text(_excerpt(problem.doc.prompt, 2 * _EXCERPT)))

    def arm_started(self, arm: Arm, samples: Sequence[Sample], load: Load) -> None:
        """See `Observer`."""
        self._chain_view.close()
        tally = self._tallies[arm] = Tally(load, samples)
        self._spoke = time.monotonic()
        if not self._live:
            self._console.print(f"{arm}: {tally.done}/{tally.total} chains", highlight=False)
            return
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[tally]}", style="dim"),
                console=self._console,
            )
            self._progress.start()
        self._bars[arm] = self._progress.add_task(str(arm), total=tally.total, completed=tally.done, tally=tally)

    def chain(self, arm: Arm, problem: Problem, sample: Sample) -> None:
        """See `Observer`."""
        tally = self._tallies[arm]
        tally.add(sample)
        if self._progress is not None:
            self._progress.update(self._bars[arm], completed=tally.done)
        elif time.monotonic() - self._spoke > INTERVAL and tally.done < tally.total:
            self._spoke = time.monotonic()
            self._console.print(f"{arm}: {tally.done}/{tally.total} chains · {tally}", highlight=False)

    def arm_finished(self, arm: Arm) -> None:
        """See `Observer`."""
        tally = self._tallies[arm]
        if self._progress is not None:
            self._progress.update(self._bars[arm], completed=tally.done, tally=str(tally))
            self._progress.stop_task(self._bars[arm])
        else:
            self._console.print(f"{arm}: {tally.done}/{tally.total} chains · {tally}", highlight=False)

    def finished(
        self, run: PreparedRun, folder: Path, points: Sequence[MeasuredPoint], compression: "Sequence[Compression]"
    ) -> None:
        """See `Observer`."""
        self.close()
        result_tables.print_frontiers(points, run.plan.budget.axis, self._console)
        result_tables.print_compression(compression, self._console)
        margin_tables.print_margins_over_vanilla(points, self._console)
        plan_tables.print_predictions(run.plan, table(points), self._console)
        text = f"results in {folder}; pictures: hyperscale plot {folder}"
        self._console.print(text, highlight=False, soft_wrap=True)


def _excerpt(text: str, limit: int) -> str:
    """One line of at most about ``limit`` characters: the beginning and the end."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit * 3 // 5]} … {line[-(limit * 2 // 5) :]}"
