"""Shows a run to people: live bars in a terminal, plain lines in a pipe."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from hyperscale.analysis.answer_shares import answer_notes
from hyperscale.analysis.answers import find_answers
from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.margins import compute_margins
from hyperscale.cli.display import answer_text, margin_tables, plan_tables, result_tables
from hyperscale.cli.display.live_chain import ChainView, printable
from hyperscale.kv.trace import dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.group_means import group_means
from hyperscale.results.manifest import read_info
from hyperscale.results.points import MeasuredPoint, table
from hyperscale.results.samples import Sample
from hyperscale.run.observer import ArmSize, RunObserver
from hyperscale.run.planned_run import PlannedRun
from hyperscale.run.prepare import Problem
from hyperscale.run.progress.arm_progress import ArmProgress
from hyperscale.utils.printing import print_line

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress
    from hyperscale.run.verification import Compression

INTERVAL = 10.0  # seconds between two lines of progress in a pipe
_WIDE = 110  # columns from which on bars are long and have a clock
_BAR, _SHORT_BAR = 24, 8
_EXCERPT = 150  # characters of a text
_NOTEWORTHY = 1.05  # a chain whose reads a full cache exceeds by this factor is said to have saved some


class ConsoleObserver(RunObserver):
    """Shows a run on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.watches_chains = self._is_terminal = console.is_terminal
        self._chain_view = ChainView(console)
        self._pilot_note = ""
        self._bars: Progress | None = None
        self._bar_ids: dict[Arm, TaskID] = {}
        self._arms: dict[Arm, ArmProgress] = {}
        self._last_line = 0.0  # when the last line of progress was printed
        self._problem_printed = False

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._chain_view.close()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def on_stage(self, text: str) -> None:
        """See `RunObserver`."""
        self._chain_view.close()
        if self._bars is None:
            self._console.print(Text(f"{text} …", style="dim"))

    def on_pilot(self, arm: Arm, done: int, total: int) -> None:
        """See `RunObserver`."""
        self._pilot_note = f"{done}/{total} chains done" if done < total else ""
        if done == total:
            self._chain_view.close()
        elif not self._is_terminal and self._line_is_due():
            self._last_line = time.monotonic()
            if done:
                self._print_line(f"pilot of {arm}: {self._pilot_note}")

    def on_chain_progress(self, arm: Arm, problem: Problem, progress: "ChainProgress") -> None:
        """See `RunObserver`."""
        if not self._pilot_note:  # a single chain, to be shown; a pilot has many problems
            self._print_problem(problem)
        self._chain_view.update(str(arm), progress, self._pilot_note)

    def on_plan(self, run: PlannedRun, folder: Path) -> None:
        """See `RunObserver`."""
        plan_tables.print_plan(run, self._console)

    def on_open(self, folder: Path, n_chains: int) -> None:
        """See `RunObserver`."""
        resuming = f", which has {n_chains:,} finished chains: resuming" if n_chains else ""
        self._console.print(Text.assemble("writing to ", (str(folder), "bold"), resuming))

    def on_note(self, text: str) -> None:
        """See `RunObserver`."""
        self._console.print(Text(f"note: {text}"))

    def on_demonstration(self, arm: Arm, problem: Problem, sample: Sample) -> None:
        """See `RunObserver`."""
        self._chain_view.close()
        self._print_problem(problem)
        self._console.print(Text.assemble((f"{arm}: ", "bold cyan"), (_excerpt(sample.text, _EXCERPT), "dim")))
        chain = sample.whole
        answer = "no answer" if chain.answer is None else f"answer {_excerpt(chain.answer, 40)}"
        line = Text(f"  {answer} ")
        line.append("✓ right" if chain.correct else "✗ wrong", style="bold green" if chain.correct else "bold red")
        line.append(f" · {sample.tokens:,} tokens · {chain.kv_reads:,.0f} KV reads · peak {chain.peak_kv:,.0f} entries")
        full_cache = sum(dense_reads(prompt, tokens) for prompt, tokens in sample.sequences)
        if chain.kv_reads and full_cache > _NOTEWORTHY * chain.kv_reads:
            line.append(f" ({full_cache / chain.kv_reads:.1f}× fewer reads than a full cache)", style="green")
        self._console.print(line)

    def _print_problem(self, problem: Problem) -> None:
        """Print the problem of the chains that are shown, once."""
        if self._problem_printed:
            return
        self._problem_printed = True
        level = "" if problem.doc.level is None else f", level {problem.doc.level}"
        self._console.print(Text.assemble("\n", (problem.task.name, "bold"), f", problem {problem.doc.id}{level}"))
        self._console.print(Text(_excerpt(problem.doc.prompt, 2 * _EXCERPT)))

    def on_arm_start(self, arm: Arm, samples: Sequence[Sample], size: ArmSize) -> None:
        """See `RunObserver`."""
        self._chain_view.close()
        first = next(iter(self._arms), arm)  # what the others are compared with
        reference = (str(first), self._arms[first]) if first != arm else None
        progress = self._arms[arm] = ArmProgress(size, samples, reference)
        self._last_line = time.monotonic()
        if not self._is_terminal:
            if progress.done < progress.total:
                self._print_line(f"{arm}: {progress.done}/{progress.total} chains")
            return
        wide = self._console.width >= _WIDE
        if self._bars is None:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=_BAR if wide else _SHORT_BAR),
                MofNCompleteColumn(),
                *((TimeElapsedColumn(),) if wide else ()),
                TextColumn("{task.fields[figures]}", style="dim"),
                console=self._console,
            )
            self._bars.start()
        # What the other columns leave: of the widest description there can be so far, and a space between columns.
        taken = 2 + max(len(str(other)) for other in self._arms) + 2 * len(str(progress.total)) + 5
        taken += _BAR + 8 if wide else _SHORT_BAR
        # The figures are written anew at every refresh, as they hold the time left: rich calls `str` on them.
        figures = _Figures(progress, max(self._console.width - taken, 0))
        self._bar_ids[arm] = self._bars.add_task(
            str(arm), total=progress.total, completed=progress.done, figures=figures
        )

    def on_chain(self, arm: Arm, problem: Problem, sample: Sample) -> None:
        """See `RunObserver`."""
        progress = self._arms[arm]
        progress.add(sample)
        if self._bars is not None:
            self._bars.update(self._bar_ids[arm], completed=progress.done)
        elif self._line_is_due() and progress.done < progress.total:
            self._last_line = time.monotonic()
            self._print_figures(arm)

    def on_arm_end(self, arm: Arm) -> None:
        """See `RunObserver`."""
        progress = self._arms[arm]
        if self._bars is not None:
            # As text, so that the clock stops.
            bar = self._bar_ids[arm]
            figures = str(self._bars.tasks[self._bars.task_ids.index(bar)].fields["figures"])
            self._bars.update(bar, completed=progress.done, figures=figures)
            self._bars.stop_task(self._bar_ids[arm])
        else:
            self._print_figures(arm)

    def on_finish(
        self, run: PlannedRun, folder: Path, points: Sequence[MeasuredPoint], compression: "Sequence[Compression]"
    ) -> None:
        """See `RunObserver`."""
        self.close()
        axis, bootstraps = run.plan.budget.axis, list(make_bootstraps(points).values())
        answer_text.print_answers(find_answers(bootstraps, axis, run.plan.ceilings), self._console)
        result_tables.print_frontiers(points, axis, self._console)
        means = group_means(points, read_info(folder).get("task_groups") or {})
        result_tables.print_group_means(means, self._console, axis)
        result_tables.print_compression(compression, self._console)
        margin_tables.print_margins(compute_margins(bootstraps, axes=margin_tables.AXES), self._console)
        plan_tables.print_predictions(run.plan, table(points), self._console)
        for note in answer_notes(points):
            self.on_note(note)
        text = f"results in {folder}; pictures: hyperscale plot {folder}"
        print_line(self._console, text)

    def _print_figures(self, arm: Arm) -> None:
        """Print how far an arm is, in one line of the console's width."""
        progress = self._arms[arm]
        beginning = f"{arm}: {progress.done}/{progress.total} chains · "
        self._print_line(beginning + progress.describe(self._console.width - len(beginning)))

    def _print_line(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def _line_is_due(self) -> bool:
        return time.monotonic() - self._last_line > INTERVAL


@dataclass(frozen=True)
class _Figures:
    """An arm's figures as they are now, in so many columns."""

    progress: ArmProgress
    width: int

    def __str__(self) -> str:
        return self.progress.describe(self.width)


def _excerpt(text: str, limit: int) -> str:
    """One line of at most about ``limit`` characters: the beginning and the end."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit * 3 // 5]} … {line[-(limit * 2 // 5) :]}"
