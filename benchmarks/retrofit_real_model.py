r"""What retrofits of a real model reach on context tasks, against its full cache and methods that need no training.

Usage: python benchmarks/retrofit_real_model.py --runs RUNS --out DIR TRAINING [TRAINING …]

TRAINING is a folder that `hyperscale retrofit` wrote; its evaluation is the run RUNS/NAME of the folder's name. All
other runs in RUNS are of the full cache (`vanilla`) and of methods without training. Example, a model in M:

    hyperscale retrofit --model M --data self --recipe paper --cr 2,4,8 --window 64 --ledger --out T/paper
    hyperscale run --model T/paper --method dms --cr 2,4,8 --task niah_single,vt --context 500,1500 --limit 100 \
        --length 64 --budget all --grid one --no-pin-prompt --out R/paper
    hyperscale run --model M --method vanilla,tova,quest --cr 2,4,8 …the same… --out R/others
    python benchmarks/retrofit_real_model.py --runs R --out D T/*

A line is a checkpoint on a task. "less full" is paired by problem, with its 95 % interval. "best other" is the best of
the methods without training at the realised ratio of the line: between two of its points a method's accuracy is linear
in the logarithm of its realised ratio, the full cache being its point at 1; beyond its largest realised ratio it keeps
its last accuracy (marked >), which favours it. Prints Markdown; DIR/retrofit-tokens.png has accuracy over the tokens of
training.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperscale import results
from hyperscale.analysis.differences import Difference, paired_difference
from hyperscale.errors import HyperscaleError
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.points import MeasuredPoint
from hyperscale.retrofit.reporting.records import CheckpointRecord, TrainingRecord


class Trained(NamedTuple):
    """A checkpoint on a task."""

    training: str
    record: TrainingRecord
    made: CheckpointRecord
    point: MeasuredPoint


class Rival(NamedTuple):
    """A method without training at a realised ratio."""

    method: str
    accuracy: float
    beyond: bool


def single(folders: Iterable[Path]) -> list[MeasuredPoint]:
    """Points with one chain, each arm's longest."""
    chosen: dict[tuple[Any, ...], MeasuredPoint] = {}
    for folder in folders:
        try:
            runs = results.read(folder)
        except HyperscaleError as error:  # it has just begun
            print(f"{folder}: {error}", file=sys.stderr)
            continue
        for run in runs:
            for point in run.points():
                series = point.series
                key = (folder, series.task, series.method, series.CR)
                if point.W == 1 and (key not in chosen or chosen[key].L < point.L):
                    chosen[key] = point
    return list(chosen.values())


def percent(point: MeasuredPoint) -> float:
    """Mean accuracy."""
    return 100 * float(point.accuracy.mean())


def accuracy_at(points: Sequence[tuple[float, float]], ratio: float) -> tuple[float, bool]:
    """A method's accuracy at a realised ratio, and whether none of its points compresses as much.

    Args:
        points: Realised ratio and accuracy of each of its points, that of the full cache among them.
        ratio: The ratio.
    """
    ordered = sorted(points)
    ratios, accuracies = zip(*ordered, strict=True)
    return float(np.interp(math.log(ratio), np.log(ratios), accuracies)), ratio > ratios[-1]


def best_rival(others: Sequence[MeasuredPoint], full: MeasuredPoint, ratio: float) -> Rival | None:
    """The best method without training at a realised ratio, on the task of these points."""
    rivals = []
    for method in sorted({point.series.method for point in others}, key=rank):
        own = [(point.realised_cr, percent(point)) for point in others if point.series.method == method]
        rivals.append(Rival(method, *accuracy_at([(1.0, percent(full)), *own], max(ratio, 1.0))))
    return max(rivals, key=lambda rival: rival.accuracy, default=None)


def find_trained(trainings: Sequence[Path], runs: Path) -> list[Trained]:
    """Checkpoints that were evaluated."""
    found = []
    for folder in trainings:
        record = TrainingRecord.read(folder)
        for point in single([runs / folder.name]) if (runs / folder.name).is_dir() else []:
            made = next((made for made in record.dms if made.cr == point.series.CR), None)
            if point.series.method == "dms" and made is not None:
                found.append(Trained(folder.name, record, made, point))
    return found


def interval(difference: Difference) -> str:
    """A difference with its interval."""
    value, low, high, _ = difference
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def table_of_trained(trained: Sequence[Trained], others: Sequence[MeasuredPoint]) -> str:
    """A line a checkpoint and task."""
    lines = [
        "| training | CR | M tokens | KL | task | accuracy, 95 % | realised CR | less full, 95 % | best other "
        "| less it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in trained:
        task = one.point.series.task
        on_task = [point for point in others if point.series.task == task]
        full = next((point for point in on_task if point.series.method == VANILLA), None)
        low, high = one.point.interval
        less, best, lead = "·", "·", "·"
        if full is not None:
            less = interval(paired_difference(one.point, full))
            without = [point for point in on_task if point.series.method != VANILLA]
            if (rival := best_rival(without, full, one.point.realised_cr)) is not None:
                best = f"{rival.method} {'>' if rival.beyond else ''}{rival.accuracy:.0f}"
                lead = f"{percent(one.point) - rival.accuracy:+.0f}".replace("-", "−")
        lines.append(
            f"| {one.training}{' (refused)' if one.made.refused else ''} | {one.made.cr:g} "
            f"| {one.made.tokens / 1e6:.1f} | {one.made.kl_hard:.4f} | {task} "
            f"| {percent(one.point):.0f} [{100 * low:.0f}, {100 * high:.0f}] | {one.point.realised_cr:.1f} | {less} "
            f"| {best} | {lead} |"
        )
    return "\n".join(lines)


def table_of_others(others: Sequence[MeasuredPoint]) -> str:
    """Accuracy and realised ratio, a line a method and ratio."""
    tasks = sorted({point.series.task for point in others}, key=by_length)
    cells: dict[tuple[int, str, float], dict[str, str]] = {}
    for point in others:
        key = rank(point.series.method), point.series.method, point.series.CR
        cells.setdefault(key, {})[point.series.task] = f"{percent(point):.0f} ({point.realised_cr:.1f})"
    lines = [f"| method | CR | {' | '.join(tasks)} |", "|---|---|" + "---|" * len(tasks)]
    for (_, method, cr), row in sorted(cells.items()):
        lines.append(f"| {method} | {cr:g} | {' | '.join(row.get(task, '·') for task in tasks)} |")
    return "\n".join(lines)


def by_length(task: str) -> tuple[str, int]:
    """Tasks by name, then by length."""
    name, _, length = task.partition("@")
    return name, int(length or 0)


def draw(trained: Sequence[Trained], others: Sequence[MeasuredPoint], file: Path) -> None:
    """Accuracy over tokens of training: a panel a task, a line a recipe, window and ratio."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = sorted({one.point.series.task for one in trained}, key=by_length)
    figure, panels = plt.subplots(
        1, max(len(tasks), 1), figsize=(3.3 * max(len(tasks), 1), 3.4), sharey=True, squeeze=False
    )
    for panel, task in zip(panels[0], tasks, strict=False):
        for point in others:
            if point.series.task == task and point.series.method == VANILLA:
                panel.axhline(percent(point), color="0.35", linestyle="--", linewidth=1, label="full cache")
        lines: dict[str, list[tuple[float, MeasuredPoint]]] = {}
        for one in trained:
            if one.point.series.task == task:
                name = f"{one.record.recipe.train}, w {one.record.recipe.window}, {one.made.cr:g}x"
                lines.setdefault(name, []).append((one.made.tokens / 1e6, one.point))
        for name, of_line in sorted(lines.items()):
            of_line.sort(key=lambda pair: pair[0])
            accuracies = np.array([percent(point) for _, point in of_line])
            ends = 100 * np.array([point.interval for _, point in of_line])
            errors = np.clip([accuracies - ends[:, 0], ends[:, 1] - accuracies], 0, None)
            panel.errorbar(
                [tokens for tokens, _ in of_line], accuracies, yerr=errors, marker="o", capsize=2, label=name
            )
        panel.set_xscale("log")
        panel.set_title(task, fontsize=10)
        panel.set_xlabel("M tokens of training", fontsize=9)
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
    panels[0][0].set_ylabel("accuracy, %")
    panels[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    figure.savefig(file, dpi=140)


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainings", type=Path, nargs="+", help="folders of `hyperscale retrofit`")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the evaluations")
    parser.add_argument("--out", type=Path, required=True, help="folder for the picture")
    args = parser.parse_args()
    trained = find_trained(args.trainings, args.runs)
    names = {folder.name for folder in args.trainings}
    runs = sorted(run for run in args.runs.iterdir() if run.is_dir() and run.name not in names)
    others = [point for point in single(runs) if point.series.method != "dms"]
    print(table_of_trained(trained, others), table_of_others(others), sep="\n\n")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(trained, others, args.out / "retrofit-tokens.png")


if __name__ == "__main__":
    main()
