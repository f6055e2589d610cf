"""Tables about a finished run: the points on its frontiers, and the compression that took place."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hyperscale.cli.display.table_format import format_interval, make_table, print_table
from hyperscale.methods.arm import compression_label
from hyperscale.methods.names import rank
from hyperscale.utils.quantities import format_quantity
from hyperscale.utils.sorting import natural_order

if TYPE_CHECKING:
    from hyperscale.results.group_means import GroupMean
    from hyperscale.results.points import MeasuredPoint, SeriesKey
    from hyperscale.run.verification import Compression


_COSTS = ("kv_reads", "peak_kv", "tokens")
_LEAST_COSTS = _COSTS[::-1]
_SHARES = ("truncated %", "no answer %")


def print_frontiers(
    points: "Sequence[MeasuredPoint]", axis: str, console: Console, hint: str = "every point is in points.csv"
) -> None:
    """Print the points on each method's frontier on one cost axis.

    "truncated" are chains that L cut off before an answer, "no answer" those that ended without one.
    """
    from hyperscale.analysis.frontier import frontier_points
    from hyperscale.results.points import name_caches

    rows = frontier_points(name_caches(points), axis)
    _print_rows(f"Frontiers by {axis} ({hint})", rows, axis, _differing(rows, "model"), console)


def print_points(points: "Sequence[MeasuredPoint]", console: Console, axis: str | None = None) -> None:
    """Print every point, with the columns of `print_frontiers`, and the run where there are several."""
    from hyperscale.results.points import name_caches

    ordered = sorted(name_caches(points), key=lambda point: (*_series_place(point), point.L, point.W))
    _print_rows(f"All {len(points):,} points", ordered, axis, _differing(ordered, "model", "run"), console)


def print_group_means(means: "Sequence[GroupMean]", console: Console, axis: str | None = None) -> None:
    """Print the means of groups of tasks, with model and run where there are several; nothing if there are no means."""
    if not means:
        return
    origin, costs = _differing(means, "model", "run"), _costs(axis)
    words = (*origin, "group", "method", "W-L-CR")
    table = make_table(
        "Means of groups of tasks, as lm-eval weighs them", words, ("tasks", "problems", "accuracy %", *costs)
    )
    for mean in sorted(means, key=lambda mean: (*_series_place(mean), mean.L, mean.W)):
        row = mean.row()
        table.add_row(
            *(row[name] for name in origin),
            *(mean.series.task, mean.series.method, mean.label, str(len(mean.tasks)), str(mean.problems)),
            format_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"]),
            *(format_quantity(row[name]) for name in costs),
        )
    print_table(table, console, ("tasks", *(name for name in _LEAST_COSTS if name != axis), "problems"))


def _print_rows(
    title: str, rows: "Sequence[MeasuredPoint]", axis: str | None, origin: Sequence[str], console: Console
) -> None:
    """A table of points, by task.

    Args:
        title: The table's.
        rows: The points, in their order on each task.
        axis: The cost axis that they were asked for by, whose column always stands; None if by none.
        origin: Fields of a series that tell the rows apart, besides task and method.
        console: Where to.
    """
    tasks, costs = sorted({point.series.task for point in rows}, key=natural_order), _costs(axis)
    words = (*origin, "task", "method", "W-L-CR")
    table = make_table(title, words, ("realised CR", "problems", "accuracy %", *_SHARES, *costs))
    for task in tasks:
        for point in rows:
            if point.series.task != task:
                continue
            row = point.row()
            table.add_row(
                *(row[name] for name in origin),
                *(task, point.series.method, point.label, f"{point.realised_cr:.2f}", f"{len(point.problems)}"),
                _format_accuracy(point),
                *(f"{row[name]:.0f}" for name in ("truncated", "no_answer")),
                *(format_quantity(row[name]) for name in costs),
            )
        table.add_section()
    least = ["problems", *_SHARES[::-1], "tokens", "realised CR", "peak_kv", "kv_reads"]
    if len(tasks) == 1:  # else it tells rows apart
        least.append("task")
    print_table(table, console, [name for name in least if name != axis])


def _costs(axis: str | None) -> tuple[str, ...]:
    """The columns of costs: the usual ones, and behind them the asked one where it is another."""
    return _COSTS if axis is None or axis in _COSTS else (*_COSTS, axis)


def _differing(rows: "Sequence[MeasuredPoint | GroupMean]", *names: str) -> list[str]:
    """Those fields of the rows' series that have several values."""
    return [name for name in names if len({getattr(row.series, name) for row in rows}) > 1]


def print_vote_change(before: "Sequence[MeasuredPoint]", after: "Sequence[MeasuredPoint]", console: Console) -> None:
    """Print what another vote makes of the same chains: of each arm and task, its widest point at its largest L.

    Args:
        before: Points of a run with the vote that it had.
        after: Points of the same chains with another one.
        console: Where to.
    """
    old = {_place(point): point for point in before}
    widest: dict[SeriesKey, MeasuredPoint] = {}
    for point in after:
        other = widest.get(point.series)
        if _place(point) in old and (other is None or (point.L, point.W) > (other.L, other.W)):
            widest[point.series] = point
    table = make_table(
        "Accuracy % of the widest and longest point of each method, before → after",
        ("task", "method", "W-L-CR", "vote"),
        ("before", "after"),
    )
    for point in sorted(widest.values(), key=_series_place):
        earlier = old[_place(point)]
        votes = earlier.vote if earlier.vote == point.vote else f"{earlier.vote} → {point.vote}"
        cells = (_format_accuracy(each) for each in (earlier, point))
        table.add_row(point.series.task, point.series.method, point.label, votes, *cells)
    if widest:
        print_table(table, console, ("vote",))


def _series_place(point: "MeasuredPoint | GroupMean") -> tuple[Any, ...]:
    return natural_order(point.series.task), rank(point.series.method), point.series


def _place(point: "MeasuredPoint") -> "tuple[SeriesKey, int, int]":
    return point.series, point.L, point.W


def _format_accuracy(point: "MeasuredPoint") -> str:
    row = point.row()
    return format_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"])


def print_compression(compression: "Sequence[Compression]", console: Console) -> None:
    """Print each arm's nominal and realised CR, and the largest share of its rule's allowance that a chain used."""
    table = make_table("Compression", ("method",), ("nominal CR", "CR (reads)", "CR (peak)", "max. share of allowance"))
    for result in compression:
        share = "n/a" if result.budget_used is None else f"{result.budget_used:.0%}"
        table.add_row(
            str(result.arm),
            compression_label(result.arm.CR, result.arm.kv_budget),
            f"{result.realised_cr:.2f}",
            f"{result.peak_cr:.2f}",
            share,
        )
    print_table(table, console, ("CR (peak)", "max. share of allowance"))
    for result in compression:
        if remark := _remark(result):
            console.print(f"{result.arm}: {remark}", highlight=False)


def _remark(result: "Compression") -> str:
    """What is to be said of an arm whose realised ratio is far from the nominal one; empty if it is not."""
    realised = f"the realised CR is {'only ' * result.weak}{result.realised_cr:.2f}"
    budget = f"where rows of at most {result.arm.kv_budget:,} entries would give {result.nominal_cr:.2f}"
    if result.unused:
        return "no chain was longer than the budget, so nothing was compressed"
    if result.weak and result.arm.kv_budget:
        return (
            f"{realised} {budget}: what the method never evicts (recent entries, a pinned prompt) or reads in full "
            "is more than the budget"
        )
    if result.weak:
        return f"{realised}; compare methods at equal cost, not at equal nominal CR"
    if result.strong:
        beyond = budget if result.arm.kv_budget else "far beyond the nominal one"
        return f"{realised}, {beyond}: accuracies are those of this stronger compression"
    return ""
