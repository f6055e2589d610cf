"""What a person sees of a run: live bars in a terminal, plain lines in a pipe."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from hyperscale import margin_table, tables
from hyperscale.kv.trace import dense_reads
from hyperscale.orchestrator import Load, Observer, Sample
from hyperscale.planner import Arm
from hyperscale.preparation import PreparedRun, Problem

INTERVAL = 10.0
_EXCERPT = 150


class Tally:
    """Running figures of one arm.

    Speed and time left are told from the first finished chain on, long before the mean of finished chains means
    anything: chains in flight move at about the pace of those that finished, and the rest is taken to lie between their
    mean length and the longest allowed, nearer to the mean as more finish.
    """

    def __init__(self, load: Load) -> None:
        self.total, self._most, self._batch = load.chains, load.most_tokens, load.batch_size
        self.done = self._right = self._fresh = self._tokens = 0
        self._reads = self._dense = self._seconds = 0.0
        self._started = time.monotonic()

    def add(self, sample: Sample, *, fresh: bool) -> None:
        """Count a chain; ``fresh`` ones were generated in this process and tell the speed."""
        self.done += 1
        self._right += bool(sample["correct"][-1])
        self._reads += sample["kv_reads"][-1]
        self._dense += dense_reads(sample["prompt_tokens"], sample["tokens"])
        if fresh:
            self._fresh += 1
            self._tokens += sample["tokens"]
            self._seconds += sample["seconds"]

    def __str__(self) -> str:
        if not self.done:
            return f"{min(self._batch, self.total)} chains under way"
        parts = [f"{100 * self._right / self.done:.0f}% right"]
        if self._reads:
            parts.append(f"realised CR {self._dense / self._reads:.1f}")
        passed = max(time.monotonic() - self._started, 1e-3)
        if self._fresh and self.done == self.total:
            parts.append(f"{self._tokens / passed:,.0f} tokens/s in {_clock(passed)}")
        elif self._fresh:
            speed = min(self._batch, self.total - self.done) * self._tokens / max(self._seconds, 1e-3)
            share = self.done / self.total
            expected = share * self._tokens / self._fresh + (1 - share) * self._most / self.total
            parts.append(f"{speed:,.0f} tokens/s")
            parts.append(f"about {_clock((self.total - self.done) * expected / max(speed, 1e-3))} left")
        return " · ".join(parts)


def _clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


class Display(Observer):
    """Shows a run on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress: Progress | None = None
        self._tallies: dict[Arm, Tally] = {}
        self._bars: dict[Arm, Any] = {}
        self._spoke = 0.0
        self._shown: list[Sample] = []

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def stage(self, text: str) -> None:
        """See `Observer`."""
        if self._progress is None:
            self._console.print(Text(f"{text} …", style="dim"))

    def opened(self, folder: Path, finished: int) -> None:
        """See `Observer`."""
        kept = f", which has {finished:,} finished chains: resuming" if finished else ""
        self._console.print(Text.assemble("writing to ", (str(folder), "bold"), kept))

    def shown(self, arm: Arm, problem: Problem, sample: Sample) -> None:
        """See `Observer`."""
        out = self._console
        if not self._shown:
            level = "" if problem.doc.level is None else f", level {problem.doc.level}"
            out.print(Text.assemble("\n", (problem.task.name, "bold"), f", problem {problem.doc.id}{level}"))
            out.print(Text(_excerpt(problem.doc.prompt, 2 * _EXCERPT)))
        answer, right = sample["answers"][-1], sample["correct"][-1]
        verdict = Text(f"{arm}: ", style="bold cyan")
        verdict.append(_excerpt(sample["text"], _EXCERPT), style="dim")
        out.print(verdict)
        says = "no answer" if answer is None else f"answer {_excerpt(answer, 40)}"
        reads, peak = sample["kv_reads"][-1], sample["peak_kv"][-1]
        line = Text(f"  {says} ", style="")
        line.append("✓ right" if right else "✗ wrong", style="bold green" if right else "bold red")
        line.append(f" · {sample['tokens']:,} tokens · {reads:,.0f} KV reads · peak {peak:,.0f} entries")
        dense = dense_reads(sample["prompt_tokens"], sample["tokens"])
        if reads and dense > 1.05 * reads:
            line.append(f" ({dense / reads:.1f}× fewer reads than a full cache)", style="green")
        out.print(line)
        self._shown.append(sample)

    def arm_started(self, arm: Arm, samples: Sequence[Sample], load: Load) -> None:
        """See `Observer`."""
        tally = self._tallies[arm] = Tally(load)
        for sample in samples:
            tally.add(sample, fresh=False)
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
        tally.add(sample, fresh=True)
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

    def finished(self, run: PreparedRun, points: Any, samples: Sequence[Sample]) -> None:
        """See `Observer`."""
        self.close()
        tables.points(points, run.plan.budget.axis, self._console)
        margin_table.margins(samples, self._console)


def _excerpt(text: str, limit: int) -> str:
    """One line of at most about ``limit`` characters: the beginning and the end."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit * 3 // 5]} … {line[-(limit * 2 // 5) :]}"
