"""Makes a task of a file in lm-eval's form: answers that are generated and graded, or options scored by likelihood."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.function import FunctionGrader
from hyperscale.scoring.graders.likelihood import LikelihoodGrader
from hyperscale.scoring.graders.lm_eval_match import LmEvalGrader
from hyperscale.tasks.own.lm_eval_form import LmEvalFile, find_faults
from hyperscale.tasks.own.sources import FunctionName, TaskSource, with_included
from hyperscale.tasks.own_lm_eval import LmEvalProblems
from hyperscale.tasks.own_problems import sources_hash
from hyperscale.tasks.task import Task
from hyperscale.utils.paths import is_there

_LOCAL = ("json", "csv", "parquet")
_TYPICAL_TOKENS = 200  # of a prompt, where a plan has nothing to measure
_SCORED_LENGTH = 64  # tokens of a problem's options together, until a tokenizer tells
#: Keys of this project that may stand beside lm-eval's.
_OURS = {"grader", "filter", "lengths", "base_length", "strategy", "summary", "gated", "metric"}
_NOT_IN_VERSION = {
    "tag",
    "task_alias",
    "metadata",
    "dataset_path",
    "dataset_kwargs",
    "summary",
    "lengths",
    "base_length",
}


def read_lm_eval(source: TaskSource) -> Task:
    """The task of a file in lm-eval's form.

    Raises:
        TaskError: A key is unknown, refused or has a wrong value; the message names file, line and key.
    """
    values = with_included(source)
    result = find_faults(values, source.parse())
    if isinstance(result, LmEvalFile):
        return _make_task(result, source, values)
    raise TaskError(result[0])


def _make_task(keys: LmEvalFile, source: TaskSource, values: Mapping[str, Any]) -> Task:
    """The task.

    Args:
        keys: What stands in its file.
        source: The file.
        values: The file's keys, functions as `FunctionName`.
    """
    if keys.is_likelihood:
        return _make_scored_task(keys, source, values)
    folder, generation = source.path.parent, keys.generation_kwargs
    own_grader: Any = keys.new_grader
    if keys.grader is not None:
        own_grader = partial(FunctionGrader, keys.grader, folder) if ":" in keys.grader else None
    functions = _functions(values)
    functions += [(keys.grader, folder)] if keys.grader and ":" in keys.grader else []
    kept = {key: value for key, value in values.items() if key not in _NOT_IN_VERSION}
    config = {key: value for key, value in values.items() if key not in _OURS | {"include"}}
    stop = generation.until if generation.until is not None else (keys.fewshot_delimiter,)
    return Task(
        name=keys.task,
        summary=keys.summary or f"a task of your own, in lm-eval's form, graded by {keys.grader or 'exact_match'}",
        version=sources_hash(kept, functions),
        grader=keys.grader or LmEvalGrader.name,
        strategy=keys.strategy or ("pass" if keys.grader == "code" else "majority"),
        base_length=keys.base_length or keys.all_lengths[-1],
        lengths=keys.all_lengths,
        size=0,
        prompt_tokens=_TYPICAL_TOKENS,
        template="{{prompt}}",
        origin=LmEvalProblems(source.path, config, _is_local(keys, folder)),
        gated=keys.gated,
        own_grader=own_grader,
        stop=tuple(text for text in stop if text),
        greedy=generation.greedy,
        continued=True,
    )


def _make_scored_task(keys: LmEvalFile, source: TaskSource, values: Mapping[str, Any]) -> Task:
    folder = source.path.parent
    kept = {key: value for key, value in values.items() if key not in _NOT_IN_VERSION}
    config = {key: value for key, value in values.items() if key not in _OURS | {"include", "metric_list"}}
    config["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    metric = keys.scored_by
    return Task(
        name=keys.task,
        summary=keys.summary or f"a task in lm-eval's form, scored by likelihood ({metric})",
        version=sources_hash(kept, _functions(values)),
        grader=LikelihoodGrader.name,
        strategy="likelihood",
        base_length=_SCORED_LENGTH,
        lengths=(_SCORED_LENGTH,),
        size=0,
        prompt_tokens=_TYPICAL_TOKENS,
        template="{{prompt}}",
        origin=LmEvalProblems(source.path, config, _is_local(keys, folder), metric, renders=True),
        own_grader=partial(LikelihoodGrader, metric),
        greedy=True,
        continued=True,
    )


def _is_local(keys: LmEvalFile, folder: Path) -> bool:
    return keys.dataset_path in _LOCAL or is_there(folder / keys.dataset_path) or is_there(keys.dataset_path)


def _functions(value: Any) -> list[tuple[str, Path]]:
    """All ``!function`` in a file, with the folders in which their modules are sought."""
    if isinstance(value, FunctionName):
        return [(value.as_function, value.folder)]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [function for entry in entries for function in _functions(entry)]
