"""Folders of runs that nobody ran: synthetic chains with a description, a plan and points."""

import json
import os

from synthetic_samples import write_samples

from hyperscale import results
from hyperscale.results.points import table


def write_run(folder, lines, *, planned=None, points=True, mtime=None, **config):
    """A run's folder; ``planned``: chains by arm, as plan.json has them."""
    folder.mkdir(parents=True)
    values = {
        "model": "mini",
        "methods": ["vanilla", "dms"],
        "crs": [8.0],
        "tasks": ["mini_aime"],
        "budget": "2x",
        **config,
    }
    (folder / results.RUN_FILE).write_text(json.dumps({"schema": 2, "config": values}))
    write_samples(folder / results.SAMPLES, lines)
    if planned is not None:
        plan = {"schema": 1, "axis": "kv_reads", "ceilings": {"mini_aime": 2e5}, "chains": planned, "points": []}
        (folder / "plan.json").write_text(json.dumps(plan))
    if points:
        (run,) = results.read(folder)
        table(run.points()).to_csv(folder / results.POINTS, index=False)
    if mtime:
        os.utime(folder / results.RUN_FILE, (mtime, mtime))
    return folder
