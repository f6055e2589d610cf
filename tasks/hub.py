"""What lm-eval calls for the tasks on public data (``lm_eval --include_path tasks``); hyperscale reads only the YAML.

Files stand in for the data, and LiveCodeBench's release and dates can be set, through lm-eval's ``--metadata``:
``'{"data": "aime24.jsonl"}'``, ``'{"data": {"aime24": "aime24.jsonl"}, "end_date": "2024-12-31"}'``.
"""

import json
from dataclasses import fields
from typing import Any

from hyperscale import tasks
from hyperscale.scoring import graders
from hyperscale.tasks.datasets import Choices, Downloaded


def dataset(name: str, data: str | dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    """A task's problems as a ``datasets`` split; arguments are the task's metadata. Targets are JSON."""
    from datasets import Dataset

    task = tasks.load(name)
    assert isinstance(task.origin, Downloaded), "the built-in tasks have a loader of their own"
    if task.origin.form == "program":
        task = task.chosen(**{each.name: metadata[each.name] for each in fields(Choices) if each.name in metadata})
    path = data.get(name) if isinstance(data, dict) else data
    rows = [
        {**item.fields, "id": item.id, "target": json.dumps(item.target), "grader": task.grader, "level": item.level}
        for item in task.origin.items(None, path, name)
    ]
    return {task.origin.source.split: Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Grade the generated text as hyperscale does: 1 if right, else 0."""
    grader = graders.get(doc["grader"])
    answer = grader.extract(results[0])
    return {"accuracy": float(answer is not None and grader.correct(answer, json.loads(doc["target"])))}
