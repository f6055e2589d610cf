"""What lm-eval calls for the tasks on public data (``lm_eval --include_path tasks``); hyperscale reads only the YAML.

Files stand in for the data, and LiveCodeBench's release and dates can be set, through lm-eval's ``--metadata``:
``'{"data": "aime24.jsonl"}'``, ``'{"data": {"aime24": "aime24.jsonl"}, "end_date": "2024-12-31"}'``.
"""

import json
from dataclasses import fields
from typing import Any

from hyperscale import tasks
from hyperscale.scoring import graders
from hyperscale.tasks.datasets import DatasetProblems, ProblemFilter


def dataset(name: str, data: str | dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    """A task's problems as a ``datasets`` split; arguments are the task's metadata. Targets are JSON."""
    from datasets import Dataset

    task = tasks.load(name)
    assert isinstance(task.origin, DatasetProblems), "the built-in tasks have a loader of their own"
    if task.origin.form == "program":
        task = task.with_parameters(
            **{field.name: metadata[field.name] for field in fields(ProblemFilter) if field.name in metadata}
        )
    path = data.get(name) if isinstance(data, dict) else data
    rows = [
        {
            **row.fields,
            "id": row.id,
            "target": json.dumps(row.target),
            "grader": task.grader,
            "options": task.options,
            "level": row.level,
        }
        for row in task.origin.rows(None, path, name)
    ]
    return {task.origin.dataset.split: Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Grade the generated text as hyperscale does: 1 if right, else 0."""
    grader = graders.get(doc["grader"], doc.get("options"))
    answer = grader.extract(results[0])
    return {"accuracy": float(answer is not None and grader.correct(answer, json.loads(doc["target"])))}
