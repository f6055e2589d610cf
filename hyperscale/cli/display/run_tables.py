"""Says what a run is and how far it is: one run with its arms, or a list of runs."""

import csv
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from hyperscale import results
from hyperscale.cli.display.table_format import NOTHING, make_table, print_table
from hyperscale.errors import ResultsError
from hyperscale.executors.faults import read_faults
from hyperscale.methods.arm import point_label
from hyperscale.planning.plan_file import planned_chains
from hyperscale.planning.run_state import RunState
from hyperscale.results.folder import Run, run_name
from hyperscale.results.manifest import read_info
from hyperscale.utils.printing import print_line


def print_run(run: Run, state: RunState, console: Console) -> None:
    """Print what a run is and how far it is; the chains of each arm where some are missing."""
    config = run.info["config"]
    parts = [config.get("model"), _methods(config), _join(config.get("tasks")), f"budget {config.get('budget')}"]
    if config.get("limit"):
        parts.append(f"--limit {config['limit']}")
    print_line(console, Text(run.name, style="bold"))
    console.print(Text(_wrap(f"{' · '.join(str(part) for part in parts if part)} · {state}", console.width)))
    if state.finished:
        return
    table = make_table("Chains done", ("method",), ("done", "planned"))
    for arm in state.arms:
        table.add_row(arm.name, f"{arm.done:,}", NOTHING if arm.planned is None else f"{arm.planned:,}")
    print_table(table, console)
    console.print("The command that started it resumes it.", highlight=False)


def summarise_runs(folder: Path) -> Iterator[dict[str, Any]]:
    """What is known of each run in a folder without reading its chains, the newest first.

    Raises:
        ResultsError: The folder is missing or holds no run.
    """
    paths = results.folders(folder)
    paths.sort(key=lambda path: -(path / results.RUN_FILE).stat().st_mtime)
    for path in paths:
        summary: dict[str, Any] = {"folder": str(path), "run": run_name(path)}
        try:
            info, faults = read_info(path), read_faults(path)
        except ResultsError as error:
            yield summary | {"problem": str(error)}
            continue
        samples = path / results.SAMPLES
        chains = samples.read_bytes().count(b"\n") if samples.is_file() else 0
        planned = sum((planned_chains(path) or {}).values()) or None
        given_up = sum(fault.chains for fault in faults if fault.problem is not None)
        finished = chains + given_up >= planned if planned else (path / results.POINTS).is_file()
        config = info["config"]
        about = {"model": config.get("model"), "methods": _methods(config), "budget": config.get("budget")}
        yield summary | about | {"chains": chains, "planned": planned, "finished": finished, "best": _best(path)}


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print a run of a list in a few lines."""
    print_line(console, Text(summary["run"], style="bold"))
    if "problem" in summary:
        console.print(Text(_wrap(summary["problem"], console.width)))
        return
    of_planned = f" of {summary['planned']:,}" if summary["planned"] and not summary["finished"] else ""
    chains = f"{'' if summary['finished'] else 'unfinished, '}{summary['chains']:,}{of_planned} chains"
    best = ", ".join(
        f"{each['task']} {each['accuracy']:.1f} % of {each['problems']:,} ({each['method']} {each['point']})"
        for each in summary["best"]
    )
    parts = [summary["model"], summary["methods"], f"budget {summary['budget']}", chains]
    parts.append(f"best: {best}" if best else "no points yet")
    console.print(Text(_wrap(" · ".join(str(part) for part in parts if part), console.width)))


def _best(folder: Path) -> list[dict[str, Any]]:
    """The most accurate row of ``points.csv`` on each task, the cheapest of equal ones; none without the file."""
    best: dict[str, dict[str, str]] = {}
    try:
        with (folder / results.POINTS).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                other = best.get(row["task"])
                if other is None or _rank(row) > _rank(other):
                    best[row["task"]] = row
    except (OSError, KeyError, ValueError):
        return []
    return [
        {
            **{"task": task, "method": row["method"], "accuracy": float(row["accuracy"])},
            **{"point": _label(row), "problems": int(row["n_problems"])},
        }
        for task, row in best.items()
    ]


def _rank(row: dict[str, str]) -> tuple[float, float]:
    return float(row["accuracy"]), -float(row["kv_reads"])


def _label(row: dict[str, str]) -> str:
    return point_label(int(row["W"]), int(row["L"]), float(row["CR"] or 1), int(row.get("kv_budget") or 0))


def _methods(config: dict[str, Any]) -> str:
    """Methods and the CRs they ran at; those with budgets in tokens have these instead."""
    names, params = config.get("methods") or (), config.get("params") or {}
    budgets = {name: params[name]["budget"] for name in names if params.get(name, {}).get("budget")}
    by_ratio = [name for name in names if name not in budgets]
    crs = ", ".join(f"{cr:g}×" for cr in config.get("crs") or ())
    parts = [_join(by_ratio) + (f" at {crs}" if crs else "")] if by_ratio else []
    for name, budget in budgets.items():
        parts.append(f"{name} at {_join(budget if isinstance(budget, list | tuple) else [budget])} tokens")
    return ", ".join(parts)


def _join(names: Any) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) else ""


def _wrap(text: str, width: int) -> str:
    """Indented lines of at most so many columns; a number and its % stay together."""
    held = text.replace(" %", "\0%")
    return textwrap.fill(held, max(width, 20), initial_indent="  ", subsequent_indent="  ").replace("\0", " ")
