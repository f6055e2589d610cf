"""Writes a run of Weights & Biases: settings, the best accuracies, charts of the frontiers, tables.

Nothing is sent anywhere: the run is kept offline in the folder, and ``wandb sync`` uploads it. Texts of chains stay
out. Who sets WANDB_MODE=online means to send it at once.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperscale.analysis.frontier import frontier_points
from hyperscale.results.folder import Run
from hyperscale.results.points import table

_AXES = ("kv_reads", "peak_kv", "tokens")


def write(run: Run, out: Path) -> Iterator[Path]:
    """Write a run.

    Yields:
        The folder of Weights & Biases' run.

    Raises:
        OSError: The disk is full or fails.
        TaskError: A task is unknown.
    """
    import wandb

    points = run.points()
    mode: Any = os.environ.get("WANDB_MODE", "offline")  # W&B refuses what is none
    record = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "hyperscale"),
        name=run.name,
        dir=out,
        config=dict(run.info["config"]),
        mode=mode,
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        ),
    )
    try:
        for axis in _AXES:
            for point in frontier_points(points, axis):
                name = f"{point.series.task}/{point.series.method}"
                cost, accuracy = f"{axis}/{name}", f"accuracy by {axis}/{name}"
                record.define_metric(cost, hidden=True)
                record.define_metric(accuracy, step_metric=cost)
                record.log({cost: float(point.costs[axis].mean()), accuracy: 100 * float(point.accuracy.mean())})
        frame = table([*points, *run.group_means(points)])
        record.log({"points": wandb.Table(dataframe=frame), "chains": wandb.Table(**_chains(run))})
        for (task, method), rows in frame.groupby(["task", "method"]):
            record.summary[f"best accuracy/{task}/{method}"] = float(rows["accuracy"].max())
        yield Path(record.dir).parent
    finally:
        record.finish()


def _chains(run: Run) -> dict[str, Any]:
    """A table's columns and rows: every chain without its text."""
    names = ("task", "problem", "method", "CR", "kv_budget", "seed", "chain", "L", "prompt_tokens", "finish", "seconds")
    ending = ("tokens", "kv_reads", "peak_kv", "answer", "correct")
    rows = [
        [*(getattr(sample, name) for name in names), *(getattr(sample.whole, name) for name in ending)]
        for sample in run.samples
    ]
    return {"columns": [*names, *ending], "data": rows}
