"""Writes what lm-eval writes: a results file for each arm, and a file of samples for each task.

An arm (a method at a compression) is what lm-eval calls a model. A point of it is a filter, as lm-eval names what makes
one answer of several responses: ``accuracy,W4-L1024`` is the accuracy of four chains of at most 1,024 tokens.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from hyperscale.export.series import Series, collect_series, date_of
from hyperscale.planning.run_state import state_of
from hyperscale.report.html.questions import ProblemKey, Question, find_questions
from hyperscale.results.folder import Run
from hyperscale.results.group_means import GroupMean
from hyperscale.results.points import COSTS, MeasuredPoint
from hyperscale.results.samples import Sample
from hyperscale.results.truncation import TruncatedChain, is_eligible, truncate
from hyperscale.utils.files import write_atomic

_SHARES = ("truncated", "no_answer")


def write(run: Run, out: Path) -> Iterator[Path]:
    """Write a run as lm-eval would have, into ``OUT/MODEL_ARM/``.

    Yields:
        Every file that was written.

    Raises:
        OSError: The disk is full or fails.
        TaskError: A task is unknown.
    """
    from lm_eval.utils import sanitize_model_name

    questions = find_questions([run])
    stamp = date_of(run).replace(tzinfo=None).isoformat().replace(":", "-")
    arms: dict[str, list[Series]] = {}
    for series in collect_series(run):
        arms.setdefault(f"{series.model}_{series.arm}", []).append(series)
    for name, of_tasks in arms.items():
        folder = out / sanitize_model_name(name)
        folder.mkdir(exist_ok=True)
        samples = {series.task.name: list(_samples(series, questions)) for series in of_tasks}
        values = _results(run, name, sanitize_model_name(name), of_tasks, samples)
        path = folder / f"results_{stamp}.json"
        write_atomic(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False))
        yield path
        for task, lines in samples.items():
            path = folder / f"samples_{task}_{stamp}.jsonl"
            write_atomic(path, (f"{json.dumps(line, ensure_ascii=False)}\n".encode() for line in lines))
            yield path


def _results(
    run: Run, name: str, sanitized: str, of_tasks: list[Series], samples: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The contents of a results file, in lm-eval's order."""
    config, first = run.info["config"], of_tasks[0]
    better = {"accuracy": True, **dict.fromkeys((*_SHARES, *COSTS), False), "realised_cr": True}
    tasks = {series.task.name: series for series in of_tasks}
    means = _group_means(run, of_tasks)
    return {
        "results": {task: _metrics(series) for task, series in tasks.items()} | means,
        **({"groups": means} if means else {}),
        "group_subtasks": {
            **{task: [] for task in tasks},
            **{group: list(run.info["task_groups"][group]["tasks"]) for group in means},
        },
        "configs": {task: _task_config(series) for task, series in tasks.items()},
        "versions": {task: _version(series) for task, series in tasks.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": dict.fromkeys(tasks, better),
        "n-samples": {
            task: {"original": series.task.size or len(series.problems), "effective": len(series.problems)}
            for task, series in tasks.items()
        },
        "config": {
            "model": "hyperscale",
            "model_args": {"pretrained": first.model, **first.compression, "dtype": first.chains[0].dtype},
            "batch_size": None,
            "device": config.get("device"),
            "limit": config.get("limit"),
            "gen_kwargs": first.generation(),
            "random_seed": config.get("seeds", [0])[0],
        },
        "git_hash": None,
        "transformers_version": (run.info.get("versions") or {}).get("transformers"),
        "date": date_of(run).timestamp(),
        "task_hashes": {
            task: _hash("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines))
            for task, lines in samples.items()
        },
        "model_source": "hyperscale",
        "model_name": name,
        "model_name_sanitized": sanitized,
        "system_instruction": config.get("system_prompt"),
        "system_instruction_sha": _hash(config["system_prompt"]) if config.get("system_prompt") else None,
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": None,
        "hyperscale": {
            **{"run": run.name, "finished": state_of(run).finished, "versions": run.info.get("versions") or {}},
            "hardware": run.info.get("hardware") or {},
        },
    }


def _metrics(series: Series) -> dict[str, Any]:
    """A task's results: each point's accuracy with its standard error, and its costs. Shares are in [0, 1]."""
    name = series.task.name
    return {"name": name, "alias": name, "sample_len": len(series.problems), **_values(series.points)}


def _group_means(run: Run, of_tasks: list[Series]) -> dict[str, dict[str, Any]]:
    """The results of the groups of an arm's tasks."""
    means: dict[str, list[GroupMean]] = {}
    for mean in run.group_means(point for series in of_tasks for point in series.points):
        means.setdefault(mean.series.task, []).append(mean)
    return {
        group: {"name": group, "alias": group, "sample_len": found[0].problems, **_values(found)}
        for group, found in means.items()
    }


def _values(points: Sequence[MeasuredPoint | GroupMean]) -> dict[str, Any]:
    """Metrics of points, each with its filter in its name."""
    values: dict[str, Any] = {}
    for point in points:
        row, label = point.row(), _filter(point)
        shares = {name: row[name] / 100 for name in ("accuracy", *_SHARES)}
        for name, value in (shares | {name: row[name] for name in ("realised_cr", *COSTS)}).items():
            if math.isfinite(value):
                values[f"{name},{label}"] = value
        error = row["accuracy_se"] / 100
        values[f"accuracy_stderr,{label}"] = error if math.isfinite(error) else "N/A"
    return values


def _task_config(series: Series) -> dict[str, Any]:
    task = series.task
    return {
        "task": task.name,
        "output_type": "multiple_choice" if series.chains[0].options else "generate_until",
        "doc_to_text": task.template,
        "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
        "repeats": max((point.W for point in series.points), default=1),
        "generation_kwargs": series.generation(),
        "metadata": {
            **{
                "version": _version(series),
                "grader": task.grader,
                "vote": series.points[0].vote if series.points else "",
            },
            **{"pretrained": series.model, **series.compression},
        },
    }


def _version(series: Series) -> float | str:
    version = series.chains[0].task_version
    try:
        return float(version)
    except ValueError:
        return version


def _filter(point: MeasuredPoint | GroupMean) -> str:
    return f"W{point.W}-L{point.L}"


def _samples(series: Series, questions: Mapping[ProblemKey, Question]) -> Iterator[dict[str, Any]]:
    """A line for each problem and each L that chains were run to: its chains as they stand at that L.

    ``accuracy`` is the problem's at the widest point there, in expectation over subsets of W chains.
    """
    number = {problem: i for i, problem in enumerate(series.problems)}
    for L in sorted({chain.L for chain in series.chains}):
        point = max((point for point in series.points if point.L == L), key=lambda point: point.W, default=None)
        accuracy = dict(zip(point.problems, point.accuracy, strict=True)) if point else {}
        for problem, group in groupby(series.chains, key=lambda chain: chain.problem):
            chains = [(chain, truncate(chain, L)) for chain in group if is_eligible(chain, L)]
            cuts = [(chain, cut) for chain, cut in chains if cut is not None]
            if point is None or problem not in accuracy or not cuts:
                continue
            chain = cuts[0][0]
            question = questions.get((chain.task, problem, chain.question_hash))
            prompt = question.prompt if question else ""
            target = question.target if question and question.target is not None else ""
            doc = {"id": problem, "level": chain.level, "prompt": prompt, "target": target}
            yield {
                "doc_id": number[problem],
                "doc": doc,
                "target": target,
                **(_scored(chain, prompt) if chain.options else _generated(series, prompt, L, cuts)),
                "filter": _filter(point),
                "metrics": ["accuracy"],
                "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
                "prompt_hash": chain.prompt_hash,
                "target_hash": _hash(target),
                "accuracy": float(accuracy[problem]),
                "correct": [bool(cut.vote.correct) for _, cut in cuts],
                "tokens": [cut.costs[COSTS.index("tokens")] for _, cut in cuts],
                "kv_reads": [cut.costs[COSTS.index("kv_reads")] for _, cut in cuts],
                "peak_kv": [cut.costs[COSTS.index("peak_kv")] for _, cut in cuts],
            }


def _generated(series: Series, prompt: str, L: int, cuts: Sequence[tuple[Sample, TruncatedChain]]) -> dict[str, Any]:
    """What was asked and what came of it."""
    return {
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {**series.generation(), "max_gen_toks": L}}},
        "resps": [[_text_at(chain, L) for chain, _ in cuts]],
        "filtered_resps": [cut.vote.answer or "" for _, cut in cuts],
    }


def _scored(sample: Sample, prompt: str) -> dict[str, Any]:
    """The same of a problem of likelihood: each option, its log-probability, and whether greedy decoding gives it."""
    results = [[option.logprob, option.greedy] for option in sample.options]
    return {
        "arguments": {
            f"gen_args_{i}": {"arg_0": prompt, "arg_1": option.text} for i, option in enumerate(sample.options)
        },
        "resps": [[result] for result in results],
        "filtered_resps": results,
    }


def _text_at(chain: Sample, L: int) -> str:
    """A chain's text as it stands at L, with the answer that was forced upon it there."""
    cut = chain.cut_at(L)
    assert cut is not None
    return chain.text[: cut.chars] + (cut.forced.text if cut.forced else "")


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8")).hexdigest()
