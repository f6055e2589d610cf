"""Tables of context tasks from finished runs: accuracy with intervals by method, CR and length, and published rows.

Usage: python benchmarks/context_table.py RUN [RUN …] [--shares] [--reference paper] [--match niah=niah_single,vt=vt]

One chain a problem counts. Intervals are 95 % over problems, by Wilson. ``--match`` says which published task stands
beside which of the runs': absolute values differ with model and prompts, so what is compared is the order of methods.
Every pair of methods is ordered by the publication or level there; here it is ordered if the interval of the difference
problem by problem leaves 0 out. With several lengths a problem counts with its mean over them, since it asks the same
at all. Tau-b is Kendall's, of the accuracies as they are: 1 for the same order, -1 for the opposite one, and 0 is no
relation; pairs that are level on either side count for less. Prints Markdown.

A run counts a problem as right if its answer has all that was asked for. RULER, and so the publication, counts the
share of it: ``--shares`` does that, with the answers as they were stored.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import nan, sqrt
from pathlib import Path

import numpy as np

from hyperscale import results, tasks
from hyperscale.analysis import published
from hyperscale.analysis.differences import interval_of_differences
from hyperscale.methods.names import VANILLA, rank
from hyperscale.results.folder import Run
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.results.points import MeasuredPoint
from hyperscale.scoring.graders.contains import ContainsGrader
from hyperscale.tasks.context.haystacks import PROSE, sentences_of
from hyperscale.tasks.context.problems import ContextProblems
from hyperscale.tasks.task import CONTEXT_MARK


def choose(points: Iterable[MeasuredPoint]) -> list[MeasuredPoint]:
    """Points of context tasks with one chain a problem, at each arm's largest L."""
    chosen: dict[tuple[str, str, float, int], MeasuredPoint] = {}
    for point in points:
        series = point.series
        key = (series.task, series.method, series.CR, series.kv_budget)
        if point.W == 1 and tasks.context_of(series.task) and (key not in chosen or chosen[key].L < point.L):
            chosen[key] = point
    return sorted(chosen.values(), key=lambda point: (rank(point.series.method), point.series.CR, context(point)))


def read_points(run: Run, *, shares: bool) -> list[MeasuredPoint]:
    """A run's points, with the share of what was asked for in the place of right or wrong if that is wanted."""
    points = run.points()
    if not shares:
        return points
    grader, found = ContainsGrader(), dict[tuple[str, str, float, int, int], dict[str, list[float]]]()
    targets: dict[str, dict[str, tuple[str, ...]]] = {}
    for sample in run.samples:
        if tasks.context_of(sample.task) is None:
            continue
        targets_of = targets.setdefault(sample.task, {})
        if sample.problem not in targets_of:
            targets_of[sample.problem] = target(run, sample.task, sample.problem)
        answer, wanted = sample.cuts[-1].answer, targets_of[sample.problem]
        right = [answer is not None and grader.correct(answer, text) for text in wanted]
        key = (sample.task, sample.method, sample.CR, sample.kv_budget, sample.L)
        found.setdefault(key, {}).setdefault(sample.problem, []).append(float(np.mean(right)))
    changed = []
    for point in points:
        series = point.series
        of_point = found.get((series.task, series.method, series.CR, series.kv_budget, point.L))
        if point.W == 1 and of_point is not None:
            accuracy = np.array([np.mean(of_point[problem]) for problem in point.problems])
            changed.append(dataclasses.replace(point, accuracy=accuracy))
    return changed


def target(run: Run, task: str, problem: str) -> tuple[str, ...]:
    """What a problem asks for, which its id draws whatever the length and the haystack are."""
    params = (run.info.get("config", {}).get("task_params") or {}).get(task, {})
    origin = tasks.load(task).with_parameters(**params).origin
    assert isinstance(origin, ContextProblems)
    return origin.questions.draw(problem, 0.5, sentences_of(PROSE, None)).target


def name(point: MeasuredPoint) -> str:
    """A point's task without its length."""
    return point.series.task.partition(CONTEXT_MARK)[0]


def context(point: MeasuredPoint) -> int:
    """The length of a point's prompts in tokens."""
    return tasks.context_of(point.series.task) or 0


def table(points: Sequence[MeasuredPoint], *, shares: bool = False) -> str:
    """Of one task: a row a method and CR, a column a length, and the shares of prompts that are kept."""
    lengths = sorted({context(point) for point in points})
    counts = sorted({len(point.problems) for point in points})
    problems = " to ".join(f"{count:,}" for count in dict.fromkeys([counts[0], counts[-1]]))
    heads = " | ".join(f"{length:,} tokens" for length in lengths)
    what = "share of what is asked for" if shares else "accuracy"
    places = " · ".join(f"{length:,}" for length in lengths)
    lines = [
        f"{name(points[0])}, {problems} problems each, {what} in percent:",
        "",
        f"| method | CR | {heads} | kept of the prompt (%), {places} |",
        "|---|---|" + "---|" * (len(lengths) + 1),
    ]
    arms: dict[tuple[str, str], dict[int, MeasuredPoint]] = {}
    for point in points:
        cr = f"{point.series.kv_budget:,} tokens" if point.series.kv_budget else f"{point.series.CR:g}"
        arms.setdefault((point.series.method, cr), {})[context(point)] = point
    for (method, cr), of_length in arms.items():
        cells = [accuracy(of_length[length]) if length in of_length else "·" for length in lengths]
        kept = [f"{100 * of_length[length].retained:.0f}" if length in of_length else "·" for length in lengths]
        lines.append(f"| {method} | {cr} | {' | '.join(cells)} | {' · '.join(kept)} |")
    return "\n".join(lines)


def accuracy(point: MeasuredPoint) -> str:
    """Percent, with the ends of the interval where there is one."""
    value = f"{100 * point.accuracy.mean():.0f}"
    if len(point.problems) < MIN_PROBLEMS:
        return value
    low, high = point.interval
    return f"{value} [{100 * low:.0f}, {100 * high:.0f}]"


def compare(points: Sequence[MeasuredPoint], values: dict[str, float], reference: str, theirs: str) -> str:
    """Of one task: the methods that both have, their accuracies side by side, and how far the orders agree.

    Args:
        points: One method a CR at each length, the full cache's among them.
        values: Published accuracies by method.
        reference: Name of the publication.
        theirs: Its name of the task.
    """
    lengths = sorted({context(point) for point in points})
    of_method: dict[str, dict[int, MeasuredPoint]] = {}
    for point in points:
        of_method.setdefault(point.series.method, {})[context(point)] = point
    methods = [method for method in of_method if method in values and len(of_method[method]) == len(lengths)]
    ours, base = name(points[0]), f"{reference}, {theirs}"
    if len(methods) < 2:
        return f"{ours}: fewer than two methods have a value in {base} at this CR"
    lines = [
        f"| method | {base} | {' | '.join(f'{ours}, {length:,}' for length in lengths)} | all lengths |",
        "|---|---|" + "---|" * (len(lengths) + 1),
    ]
    means = {method: mean_by_problem(of_method[method].values()) for method in methods}
    for method in sorted(methods, key=lambda method: -values[method]):
        cells = [accuracy(of_method[method][length]) for length in lengths]
        share = 100 * np.mean(list(means[method].values()))
        lines.append(f"| {method} | {values[method]:g} | {' | '.join(cells)} | {share:.0f} |")
    taus = [
        tau(methods, values, {method: float(of_method[method][length].accuracy.mean()) for method in methods})
        for length in lengths
    ]
    whole = tau(methods, values, {method: float(np.mean(list(means[method].values()))) for method in methods})
    cells = [f"{value:+.2f}" if value == value else "·" for value in (*taus, whole)]
    lines.append(f"| Kendall's tau-b | | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *pairs(methods, values, means, base)])


def mean_by_problem(points: Iterable[MeasuredPoint]) -> dict[str, float]:
    """Each problem's accuracy, mean over the points that have it."""
    found: dict[str, list[float]] = {}
    for point in points:
        for problem, value in zip(point.problems, point.accuracy, strict=True):
            found.setdefault(problem, []).append(float(value))
    return {problem: float(np.mean(values)) for problem, values in found.items()}


def pairs(methods: Sequence[str], values: dict[str, float], means: dict[str, dict[str, float]], base: str) -> list[str]:
    """Which pairs have the published order, which the opposite one, and which are undecided here."""
    same, opposite, undecided = [], [], []
    for a, b in combinations(methods, 2):
        if values[a] == values[b]:
            continue
        better, worse = (a, b) if values[a] > values[b] else (b, a)
        common = sorted(set(means[better]) & set(means[worse]))
        found = interval_of_differences(np.array([means[better][one] - means[worse][one] for one in common]))
        interval = f" [{found.low:+.0f}, {found.high:+.0f}]" if found.has_interval else ""
        told = f"{better} over {worse} ({found.value:+.0f}{interval})"
        (undecided if not found.decided else same if found.value > 0 else opposite).append(told)
    total = len(same) + len(opposite) + len(undecided)
    listed = [("the same order", same), ("the opposite one", opposite), ("undecided here", undecided)]
    return [f"Of {total} pairs that {base} orders (points of difference here, all lengths together):", ""] + [
        f"- {what}: {len(told)}" + (f" – {'; '.join(told)}" if told else "") for what, told in listed
    ]


def tau(methods: Sequence[str], ours: dict[str, float], theirs: dict[str, float]) -> float:
    """Kendall's tau-b of two rankings; NaN where one of them has no order at all."""
    products, untied = 0.0, [0, 0]
    for a, b in combinations(methods, 2):
        signs = [float(np.sign(values[a] - values[b])) for values in (ours, theirs)]
        products += signs[0] * signs[1]
        untied = [count + bool(sign) for count, sign in zip(untied, signs, strict=True)]
    return products / sqrt(untied[0] * untied[1]) if all(untied) else nan


def main() -> None:
    """Read the runs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    parser.add_argument("--shares", action="store_true", help="count the share of what a problem asks for")
    parser.add_argument("--reference", help="published results: paper, or a folder")
    parser.add_argument("--match", default="niah=niah_single,niah=niah_multikey,vt=vt", help="published task=task, …")
    args = parser.parse_args()
    runs = [run for folder in args.runs for run in results.read(folder)]
    points = choose(point for run in runs for point in read_points(run, shares=args.shares))
    names = list(dict.fromkeys(map(name, points)))
    parts = [table([point for point in points if name(point) == task], shares=args.shares) for task in names]
    for match in args.match.split(",") if args.reference else []:
        reference = published.load(args.reference)
        theirs, ours = match.split("=")
        known = reference.accuracy(theirs)
        for cr in sorted({point.CR for point in known if point.CR > 1}):
            values = {point.method: point.accuracy for point in known if cr == point.CR or point.method == VANILLA}
            here = [p for p in points if name(p) == ours and (cr == p.series.CR or p.series.method == VANILLA)]
            if here:
                models = ", ".join(sorted({point.model for point in known}))
                parts.append(f"At CR {cr:g}; {reference.name} has {models}:\n")
                parts[-1] += "\n" + compare(here, values, reference.name, theirs)
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
