"""A table of methods from finished runs: accuracy, realised CR, reads and peak by task, a row a method and nominal CR.

Usage: python benchmarks/method_table.py RUN [RUN …] [--length L]
Without --length each task's longest L that every method has is shown; W is 1. Prints Markdown.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from hyperscale import results
from hyperscale.cli.display import table_format
from hyperscale.results.points import table
from hyperscale.utils.quantities import format_quantity


def shown(found: pd.DataFrame, length: int | None) -> pd.DataFrame:
    """The rows of one chain at the length to be shown, of each task."""
    single = found[found["W"] == 1]
    parts = []
    for _, of_task in single.groupby("task", sort=False):
        common = set.intersection(*(set(arm["L"]) for _, arm in of_task.groupby(["method", "CR"])))
        wanted = length or max(common, default=0)
        parts.append(of_task[wanted == of_task["L"]])
    return pd.concat(parts)


def markdown(found: pd.DataFrame) -> str:
    """The table."""
    tasks = sorted(set(found["task"]))
    lengths = {task: "/".join(f"{n:,}" for n in sorted(set(found[found["task"] == task]["L"]))) for task in tasks}
    heads = [f"{task}, L = {lengths[task]} | CR | reads | peak" for task in tasks]
    lines = [f"| method | nominal | {' | '.join(heads)} |", "|---|---|" + "---|---|---|---|" * len(tasks)]
    order = list(dict.fromkeys(found["method"]))
    arms = sorted(found.groupby(["method", "CR"]), key=lambda pair: (order.index(pair[0][0]), pair[0][1]))
    for (method, cr), arm in arms:
        of_task = {row["task"]: cells(row) for row in arm.to_dict("records")}
        columns = [cell for task in tasks for cell in of_task.get(task, ["·"] * 4)]
        lines.append(f"| {method} | {cr:g} | {' | '.join(columns)} |")
    return "\n".join(lines)


def cells(row: dict[Any, Any]) -> list[str]:
    """Accuracy, realised CR and costs of a point."""
    costs = [format_quantity(row[axis]) for axis in ("kv_reads", "peak_kv")]
    return [table_format.format_accuracy(row["accuracy"], row["accuracy_se"]), f"{row['realised_cr']:.1f}", *costs]


def main() -> None:
    """Read the runs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    parser.add_argument("--length", type=int, help="L of every task")
    args = parser.parse_args()
    points = [point for folder in args.runs for run in results.read(folder) for point in run.points()]
    print(markdown(shown(table(points), args.length)))


if __name__ == "__main__":
    main()
