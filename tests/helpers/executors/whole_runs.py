"""Runs of a tiny checkpoint whose engines may be side by side, and all that has to be the same in them."""

import json

import pandas as pd

from hyperscale import results
from hyperscale.run import execute, prepare
from hyperscale.run.config import load
from hyperscale.run.observer import RunObserver


def make(weights, **changes):
    values = {
        "model": str(weights),
        "methods": ["vanilla", "dms", "tova"],
        "crs": [8],
        "tasks": ["mini_aime", "mini_gpqa"],
        "lengths": [32, 64, 128],
        "budget": "1x",
        "grid": "mini",
        "predict": "closed",
        "engine": "torch",
        "batch_size": 4,
        "limit": 6,
    }
    return load.make_config({**values, **changes})


class Notes(RunObserver):
    def __init__(self):
        self.texts = []

    def on_note(self, text):
        self.texts.append(text)


def execute_run(asked, folder, observer=None):
    """Execute a run; gives the remarks that it made, if no other observer looks."""
    observer = observer or Notes()
    run = prepare.prepare_run(asked, lambda text: None)
    execute.execute_run(run, folder, observer)
    return getattr(observer, "texts", None)


def points(folder):
    return pd.read_csv(folder / results.POINTS).drop(columns=["run", "seconds"])


def chains(folder):
    """Everything that a run stored but its times, by chain."""
    found = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        values = json.loads(line)
        _drop_times(values)
        key = json.dumps({name: values[name] for name in ("task", "problem", "method", "CR", "seed", "chain", "L")})
        assert key not in found
        found[key] = values
    return found


def _drop_times(values):
    for name in [name for name in values if "seconds" in name or name in ("finished", "time", "date")]:
        del values[name]
    for value in values.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _drop_times(part)
