"""What lm-eval calls for the context tasks (``lm_eval --include_path tasks``); hyperscale reads only the YAML.

Prompts are as long as the model's own tokenizer says, so lm-eval has to tell it: ``--metadata '{"tokenizer": "DIR"}'``
where the model's arguments do not name it, and ``{"context": 8192}`` for another length. The length counts the model's
chat template, as lm-eval's ``--apply_chat_template`` adds it.
"""

import json
from typing import Any

from hyperscale import models, tasks
from hyperscale.errors import TaskError
from hyperscale.models.prompts import PromptFormat
from hyperscale.scoring import graders
from hyperscale.utils.hub import load_tokenizer


def dataset(name: str, context: int, **metadata: Any) -> dict[str, Any]:
    """A task's problems as a ``datasets`` split; arguments are the task's metadata and the model's arguments."""
    from datasets import Dataset

    given = next((metadata[key] for key in ("tokenizer", "pretrained", "model") if metadata.get(key)), None)
    if given is None:
        raise TaskError(f'{name} needs the model\'s tokenizer: name it with --metadata \'{{"tokenizer": "DIR"}}\'')
    task = tasks.load(name).at_context(context)
    path = models.resolve(given, "vanilla", 1.0).path
    rows = [
        {**row.fields, "id": row.id, "target": json.dumps(row.target), "grader": task.grader}
        for row in task.rows(data=metadata.get("data"), prompt_format=PromptFormat(load_tokenizer(path)))
    ]
    return {"test": Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Grade the generated text as hyperscale does: 1 if right, else 0."""
    grader = graders.get(doc["grader"])
    answer = grader.extract(results[0])
    return {"accuracy": float(answer is not None and grader.correct(answer, json.loads(doc["target"])))}
