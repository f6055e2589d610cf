"""Tables of two runs side by side: differences at equal W and L, and at equal cost."""

from collections.abc import Sequence

from rich.console import Console

from hyperscale.analysis.run_comparison import ComparedPoints, Comparison
from hyperscale.analysis.sentences import format_difference
from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.results.intervals import MIN_PROBLEMS
from hyperscale.utils.quantities import format_length, format_quantity


def print_comparisons(comparisons: Sequence[Comparison], console: Console, *, everything: bool = False) -> None:
    """Print both tables, and what they leave open.

    Args:
        comparisons: At least one.
        console: Where to.
        everything: Every W that both have, not the smallest and the largest alone.
    """
    axis = comparisons[0].axis
    shown: list[ComparedPoints] = []
    ratio, cost = f"{axis} B/A", f"{axis} A"
    table = make_table(
        "At equal W and L: accuracy of B less that of A, points, 95 % interval",
        ("task", "B", "A", "W-L"),
        ("B %", "A %", "B - A", ratio),
    )
    for comparison in comparisons:
        for pair in comparison.at_equal_size if everything else _ends(comparison.at_equal_size):
            table.add_row(
                *(comparison.task, str(comparison.b), str(comparison.a), f"{pair.a.W}-{format_length(pair.a.L)}"),
                *_accuracies(pair),
                f"×{pair.cost_b / pair.cost_a:.2f}" if pair.cost_a else NOTHING,
            )
            shown.append(pair)
        table.add_section()
    if shown:
        print_table(table, console, ("A %", ratio, "A"))
    table = make_table(
        f"At equal cost: the best of B at or under the {axis} of every frontier point of A",
        ("task", "B", "A"),
        (cost, "B %", "A %", "B - A"),
    )
    at_cost = [pair for comparison in comparisons for pair in comparison.at_equal_cost]
    for comparison in comparisons:
        for pair in comparison.at_equal_cost:
            table.add_row(
                *(comparison.task, f"{pair.b.series.method} {pair.b.label}", f"{pair.a.series.method} {pair.a.label}"),
                format_quantity(pair.cost_a),
                *_accuracies(pair),
            )
        table.add_section()
    if at_cost:
        print_table(table, console, ("A %", cost, "A"))
    else:
        console.print("At equal cost: every point of B costs more than every frontier point of A", highlight=False)
    for line in _notes([*shown, *at_cost]):
        console.print(line, highlight=False)


def _ends(pairs: Sequence[ComparedPoints]) -> list[ComparedPoints]:
    """The narrowest and the widest pair of every L."""
    by_length: dict[int, list[ComparedPoints]] = {}
    for pair in pairs:
        by_length.setdefault(pair.a.L, []).append(pair)
    return [pair for group in by_length.values() for pair in (group if len(group) == 1 else [group[0], group[-1]])]


def _accuracies(pair: ComparedPoints) -> tuple[str, ...]:
    return f"{pair.accuracy_b:.1f}", f"{pair.accuracy_a:.1f}", format_difference(pair.difference)


def _notes(pairs: Sequence[ComparedPoints]) -> list[str]:
    """How many differences are decided, and which problems they rest on."""
    counts = sorted({pair.difference.n_problems for pair in pairs})
    problems = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    notes = [f"Problem by problem, on the {problems} problem{'s' * (counts[-1] != 1)} of both."]
    if any({*pair.a.problems} != {*pair.b.problems} for pair in pairs):
        notes[0] += " The runs have others besides, which do not count here."
    decided = sum(pair.difference.decided for pair in pairs)
    judged = sum(pair.difference.has_interval for pair in pairs)
    if judged:
        notes.append(
            f"{decided} of {judged} intervals leave 0 out: those differences are more than noise. Of intervals without "
            "any true difference, about one in 20 does."
        )
    if judged < len(pairs):
        notes.append(f"No interval with fewer than {MIN_PROBLEMS} problems: nothing is decided there.")
    return notes
