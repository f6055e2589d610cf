"""What lm-eval calls for the ``mini_*`` tasks (``lm_eval --include_path tasks``); hyperscale reads only the YAML."""

import json
from typing import Any

from hyperscale.mini import benchmarks
from hyperscale.scoring import graders


def dataset(kind: str, grader: str, size: int = 200, **_: Any) -> dict[str, Any]:
    """The generated problems as a ``datasets`` split; arguments are the task's metadata. Targets are JSON."""
    from datasets import Dataset

    code = grader == "code"
    rows = [
        {
            "id": problem.id,
            "prompt": problem.prompt,
            "target": json.dumps(problem.tests if code else problem.answer),
            "grader": grader,
            "level": problem.level,
        }
        for problem in benchmarks.generate_problems(kind, size)
    ]
    return {"test": Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Grade the generated text as hyperscale does: 1 if right, else 0."""
    grader = graders.get(doc["grader"])
    answer = grader.extract(results[0])
    return {"accuracy": float(answer is not None and grader.correct(answer, json.loads(doc["target"])))}
