"""Results as pandas frames: what ``hyperscale.load(folder)`` and ``hyperscale.run(...)`` give (docs/python.md).

The commands that read results take them from here, too, so that a notebook and the terminal show the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.errors import ResultsError

if TYPE_CHECKING:
    import pandas as pd

    from hyperscale.analysis.answers import Answer
    from hyperscale.analysis.curves import Analysis
    from hyperscale.analysis.margins import MethodPair
    from hyperscale.results.folder import Run
    from hyperscale.results.group_means import GroupMean
    from hyperscale.results.points import MeasuredPoint

RESAMPLES = 1000  # of the problems, for bands and intervals

_CHAIN = (
    *("run", "model", "engine", "method", "CR", "kv_budget", "kv_dtype", "task", "problem", "level", "seed", "chain"),
    *("L", "prompt_tokens", "finish", "seconds"),
)
_ENDING = ("tokens", "kv_reads", "peak_kv", "logprob", "inserted", "answer", "correct")
_POINT = ("run", "model", "method", "engine", "task", "W", "L", "CR", "kv_budget", "kv_dtype")


def load(folder: Path | str = "results") -> "Results":
    """Read a run's folder, or all runs directly inside a folder; nothing is generated and nothing is written.

    Args:
        folder: The folder. A run that goes on may be read at any time.

    Raises:
        ResultsError: The folder is missing or holds no run, or a file in it is corrupt.
    """
    from hyperscale import results

    return Results(Path(folder), results.read(folder))


class Results:
    """The results of a run, or of several together.

    Frames are made when they are first asked for. kv_reads and peak_kv are in cache entries, as a mean over layers and
    KV heads; accuracies and shares are in percent.

    Attributes:
        folder: Where they were read from.
        runs: The runs, each with its description (``info``) and its chains as records (``samples``).
    """

    def __init__(self, folder: Path, runs: "Sequence[Run]") -> None:
        self.folder = folder
        self.runs = tuple(runs)

    def __repr__(self) -> str:
        n = len(self.runs)
        return f"<Results of {n} run{'s' * (n != 1)} in {self.folder}: {self.n_chains:,} chains>"

    def __str__(self) -> str:
        """The answer in words (docs/answers.md), after what is to be known of the runs."""
        from hyperscale.analysis.sentences import write_paragraphs

        paragraphs = write_paragraphs(self.answers()) if self.measured_points else []
        lines = [*self.notes, *(line for heading, sentences in paragraphs for line in (heading, *sentences))]
        return "\n".join(lines) or "no finished chain yet"

    @property
    def n_chains(self) -> int:
        """Finished chains."""
        return sum(len(run.samples) for run in self.runs)

    @property
    def finished(self) -> bool:
        """Whether every run has all chains that its plan asks for."""
        from hyperscale.planning.run_state import state_of

        return all(state_of(run).finished for run in self.runs)

    @property
    def notes(self) -> list[str]:
        """What was left out of the chains, and which runs are unfinished, a sentence each."""
        from hyperscale.planning.run_state import unfinished_notes

        return [note for run in self.runs for note in run.notes] + unfinished_notes(self.runs)

    @property
    def axis(self) -> str:
        """The cost axis of the budget that the runs have in common; kv_reads where they have none."""
        return self._budget[0]

    @cached_property
    def measured_points(self) -> "list[MeasuredPoint]":
        """The points as records, each with the accuracy and the costs of every problem as arrays."""
        return [point for run in self.runs for point in run.points()]

    def of_tasks(self, names: Sequence[str]) -> "Results":
        """The same with the points of some tasks alone.

        Args:
            names: Of the tasks; ``niah_single`` stands for all its lengths, ``niah_single@4096`` for one.

        Raises:
            ResultsError: One of them has no points here.
        """
        from hyperscale.results.points import of_tasks

        chosen = Results(self.folder, self.runs)
        chosen.measured_points = of_tasks(self.measured_points, names)
        return chosen

    @cached_property
    def group_means(self) -> "list[GroupMean]":
        """The means of groups of tasks (MMLU) as records, where the runs' tasks were named by a group."""
        means = []
        for run in self.runs:
            means += run.group_means(point for point in self.measured_points if point.series.run == run.name)
        return means

    @cached_property
    def points(self) -> "pd.DataFrame":
        """Every point W-L-CR, a row each, with the columns of ``points.csv`` (results/README.md).

        Behind them the means of groups of tasks, whose ``n_tasks`` is above 1.

        ``accuracy`` with its standard error and the ends of its 95 % interval over problems, in percent; costs per
        problem: kv_reads and peak_kv in entries, peak_bytes and read_bytes, tokens, seconds.
        """
        from hyperscale.results.points import table

        return table([*self.measured_points, *self.group_means])

    @cached_property
    def problems(self) -> "pd.DataFrame":
        """Every point on every one of its problems, a row each: what paired comparisons need.

        run, model, method, engine, task, W, L, CR, kv_budget, kv_dtype; then ``problem``, ``accuracy`` in percent
        (expected over subsets of W chains, mean over seeds), and the costs as in `points`.
        """
        import pandas as pd

        from hyperscale.results.points import COSTS

        parts = []
        for point in self.measured_points:
            known = {"W": point.W, "L": point.L}
            names = {name: known.get(name, getattr(point.series, name, None)) for name in _POINT}
            values = {"problem": point.problems, "accuracy": 100 * point.accuracy, **point.costs}
            parts.append(pd.DataFrame({**names, **values}))
        columns = [*_POINT, "problem", "accuracy", *COSTS]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    @cached_property
    def chains(self) -> "pd.DataFrame":
        """Every finished chain at its own L, a row each.

        Which it is: run, model, engine, method, CR, kv_budget (tokens; 0 for none), kv_dtype, task, problem, level,
        seed, chain, L. What came of it: prompt_tokens, ``finish`` (stop or length), seconds in the batch, ``tokens``,
        kv_reads, peak_kv, ``logprob`` (sum over drawn tokens, temperature 1), ``inserted`` tokens, ``answer``,
        ``correct``, ``text``.
        """
        import pandas as pd

        rows = [
            (*_identity(run.name, sample), *(getattr(sample.whole, name) for name in _ENDING), sample.text)
            for run in self.runs
            for sample in run.samples
        ]
        return pd.DataFrame(rows, columns=[*_CHAIN, *_ENDING, "text"])

    @cached_property
    def cuts(self) -> "pd.DataFrame":
        """Every chain at every L that was recorded, a row each: the columns of `chains` but for the text.

        ``L`` is that of the cut and ``max_L`` the chain's own; ``forced_answer`` and ``forced_correct`` tell what the
        chain answered where it was made to.
        """
        import pandas as pd

        place = _CHAIN.index("L")
        rows = []
        for run in self.runs:
            for sample in run.samples:
                identity = _identity(run.name, sample)
                for cut in sample.cuts:
                    forced = (None, None) if cut.forced is None else (cut.forced.answer, cut.forced.correct)
                    ending = (getattr(cut, name) for name in _ENDING)
                    rows.append((*identity[:place], cut.L, *identity[place + 1 :], *ending, *forced, sample.L))
        return pd.DataFrame(rows, columns=[*_CHAIN, *_ENDING, "forced_answer", "forced_correct", "max_L"])

    @cached_property
    def kept(self) -> "pd.DataFrame":
        """Which layers and heads keep their entries: a row for each KV head of each arm on each task.

        run, model, method, engine, CR, kv_budget, kv_dtype, task; ``layer`` and ``head`` from 0; ``kept``, entries that
        the head held when a chain ended in percent of a full cache's, mean over ``chains`` chains. Empty where the
        engine does not tell, as vLLM, and for runs of older versions.
        """
        import numpy as np
        import pandas as pd

        from hyperscale.analysis.kept_shares import collect_kept_shares

        names = ("run", "model", "method", "engine", "CR", "kv_budget", "kv_dtype", "task")
        rows = [
            (*(getattr(found.series, name) for name in names), layer, head, 100 * float(share), found.chains)
            for found in collect_kept_shares(self.runs)
            for (layer, head), share in np.ndenumerate(found.share)
        ]
        return pd.DataFrame(rows, columns=[*names, "layer", "head", "kept", "chains"])

    def frontier(self, axis: str | None = None) -> "pd.DataFrame":
        """The points on the frontier of each task, model and method, by ascending cost, with the columns of `points`.

        A point is on it if it is more accurate than every cheaper one; points of too few problems are left out.

        Args:
            axis: Cost axis: kv_reads, peak_kv, peak_bytes, tokens, seconds or read_bytes; by default `axis`.

        Raises:
            ResultsError: Unknown axis.
        """
        from hyperscale.analysis.frontier import frontier_points
        from hyperscale.results.points import name_caches, table

        return table(frontier_points(name_caches(self.measured_points), axis or self.axis))

    def margins(
        self,
        pairs: "Sequence[MethodPair] | str | None" = None,
        axes: Sequence[str] | str | None = None,
        resamples: int = RESAMPLES,
    ) -> "pd.DataFrame":
        """By how many points of accuracy one method's frontier lies above another's, with 95 % intervals.

        A row for each model, task, pair and axis, with the columns of ``margins.csv``: ``linear`` and ``log2`` (of the
        cost that is averaged over), each with the ends of its interval, NaN with fewer than 10 problems.

        Args:
            pairs: Of methods (a, b), for the margin of a over b, or a text like ``dms:vanilla,dms:window``; by default
                every method over vanilla.
            axes: Cost axes; all by default.
            resamples: Of the problems, for the intervals.

        Raises:
            ResultsError: Unknown axis, or a pair of which no task has both methods.
        """
        from hyperscale.analysis.bootstrap import make_bootstraps
        from hyperscale.analysis.margins import compute_margins, parse_pairs, to_frame
        from hyperscale.results.points import COSTS, name_caches

        pairs = parse_pairs(pairs) if isinstance(pairs, str) else pairs
        axes = [axes] if isinstance(axes, str) else COSTS if axes is None else axes
        bootstraps = make_bootstraps(name_caches(self.measured_points), resamples)
        return to_frame(compute_margins(bootstraps.values(), pairs, axes))

    def compare(
        self, other: "Results | None" = None, axis: str | None = None, pairs: "Sequence[MethodPair] | str | None" = None
    ) -> "pd.DataFrame":
        """Another run's accuracy less this one's, problem by problem: at equal W and L, and at equal cost.

        A row for each pair of points: task, ``at`` (size or cost), the arm and the W, L, accuracy (percent) and cost of
        each side (``_a`` this one's, ``_b`` the other's) on the problems of both, ``difference`` in points with the
        ends of its 95 % interval, n_problems.

        Args:
            other: The other results; by default the methods of this one are held against its vanilla.
            axis: Cost axis; by default `axis`.
            pairs: Methods of the other one and of this, as for `margins`; by default equal ones.

        Raises:
            ResultsError: Unknown axis, or nothing can be compared.
        """
        import pandas as pd

        from hyperscale.analysis.margins import parse_pairs
        from hyperscale.analysis.run_comparison import compare_points

        pairs = parse_pairs(pairs) if isinstance(pairs, str) else pairs
        other = other or self
        same = [run.folder.resolve() for run in self.runs] == [run.folder.resolve() for run in other.runs]
        found = compare_points(self.measured_points, other.measured_points, axis or self.axis, pairs, same=same)
        rows = [
            {"task": each.task, "at": at, "arm_a": str(each.a), "arm_b": str(each.b)} | pair.row()
            for each in found
            for at, pairs_of_points in (("size", each.at_equal_size), ("cost", each.at_equal_cost))
            for pair in pairs_of_points
        ]
        return pd.DataFrame(rows)

    def answers(self, axis: str | None = None) -> "list[Answer]":
        """What a budget buys with each method and what equals the full cache for less, one a model and task.

        ``str(results)`` is the same in words.

        Args:
            axis: Cost axis; by default `axis`. The budget counts on its own axis alone.

        Raises:
            ResultsError: Unknown axis.
        """
        from hyperscale.analysis.answers import find_answers
        from hyperscale.analysis.bootstrap import make_bootstraps
        from hyperscale.results.points import check_axis, name_caches

        axis = axis or self.axis
        check_axis(axis)
        bootstraps = make_bootstraps(name_caches(self.measured_points), RESAMPLES)
        return find_answers(bootstraps.values(), axis, self.ceilings(axis))

    def analyse(
        self, axes: Sequence[str] = (), pairs: "Sequence[MethodPair] | None" = None, resamples: int = RESAMPLES
    ) -> "Analysis":
        """All that pictures show, as records: answers on the first axis, frontiers with their bands, margins.

        Args:
            axes: Cost axes; by default `axis` alone.
            pairs: As for `margins`.
            resamples: As for `margins`.

        Raises:
            ResultsError: Unknown axis, a pair of which no task has both methods, or there is no finished chain yet.
        """
        from hyperscale.analysis.curves import analyse

        axes = tuple(axes) or (self.axis,)
        if not self.n_chains:
            raise ResultsError(f"{self.folder} holds no finished chain yet: nothing to draw")
        return analyse(self.measured_points, axes, pairs, resamples, ceilings=self.ceilings(axes[0]))

    def plot(self, axis: str | None = None) -> Any:
        """Accuracy against a cost, as ``hyperscale plot`` draws it.

        Args:
            axis: Cost axis; by default `axis`.

        Returns:
            A ``matplotlib.figure.Figure``, which notebooks show; ``savefig`` writes it.

        Raises:
            ResultsError: Unknown axis, or nothing to draw.
        """
        import matplotlib as mpl

        from hyperscale.report.plots.figure import RC, draw_figure

        axis = axis or self.axis
        curves = self.analyse([axis]).curves[axis]
        if not curves:
            raise ResultsError(f"no chain of {self.folder} has read anything from its cache: nothing to draw")
        with mpl.rc_context(RC):
            return draw_figure(curves, axis, None, self.notes)

    def export(
        self,
        to: Sequence[str] | str = "lm-eval",
        out: Path | str | None = None,
        on_file: Callable[[Path], None] = lambda _: None,
    ) -> list[Path]:
        """Write the runs in formats of other tools (docs/exports.md).

        Args:
            to: Of lm-eval, inspect, tensorboard and wandb, one or several.
            out: Folder for the files; by default ``export/`` in `folder`.
            on_file: Called with everything that was written.

        Returns:
            What was written: files, or the folder of a run of Weights & Biases.

        Raises:
            ConfigError: A format does not exist, or its package is not installed.
            ResultsError: There is no finished chain, or ``out`` cannot be written.
        """
        from hyperscale.export.write import export_runs

        names = [to] if isinstance(to, str) else to
        return export_runs(self.runs, names, Path(out) if out is not None else self.folder / "export", on_file)

    def ceilings(self, axis: str) -> Mapping[str, float]:
        """Task to the budget per problem that the runs have in common, on its own axis; empty on others."""
        own, ceilings = self._budget
        return ceilings if axis == own else {}

    @cached_property
    def _budget(self) -> tuple[str, Mapping[str, float]]:
        from hyperscale.planning.plan_file import common_ceilings

        return common_ceilings(run.folder for run in self.runs) or ("kv_reads", {})


def _identity(run: str, sample: Any) -> tuple[Any, ...]:
    """Which chain a sample is, and what is the same at all of its cuts: the columns `_CHAIN`."""
    return (run, *(getattr(sample, name) for name in _CHAIN[1:]))
