"""Writes logs of inspect_ai, by its own writer: one for each arm on each task, which its viewer shows.

A chain is what inspect_ai calls an epoch of a sample. A point of the arm is a reducer, as inspect_ai names what makes
one score of several epochs: ``W4-L1024``. Methods whose rule depends on L have a log for each L.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.export.series import Series, collect_series, date_of
from hyperscale.planning.run_state import state_of
from hyperscale.report.html.questions import ProblemKey, Question, find_questions
from hyperscale.results.folder import Run
from hyperscale.results.points import COSTS, MeasuredPoint
from hyperscale.results.samples import Sample

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore

_UNKNOWN = "(results do not hold the question)"


def write(run: Run, out: Path) -> Iterator[Path]:
    """Write a run's logs.

    Yields:
        Every file that was written.

    Raises:
        OSError: The disk is full or fails.
        TaskError: A task is unknown.
    """
    from inspect_ai.log import write_eval_log

    questions = find_questions([run])
    date, finished = date_of(run), state_of(run).finished
    for series in collect_series(run):
        invariant = series.chains[0].length_invariant
        for L in [None] if invariant else sorted({chain.L for chain in series.chains}):
            name = "_".join(filter(None, [series.task.name, series.arm, f"L{L}" if L else ""]))
            name = "".join(character if character.isalnum() or character in "._-@" else "-" for character in name)
            path = out / f"{date:%Y-%m-%dT%H-%M-%S}_{name}.eval"
            write_eval_log(_log(series, L, questions, date, finished=finished), str(path))
            yield path


def _log(
    series: Series, L: int | None, questions: Mapping[ProblemKey, Question], date: datetime, *, finished: bool
) -> "EvalLog":
    """The log of an arm on a task, of the chains that ran with a maximum of L if one is given."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig, ModelUsage

    chains = [chain for chain in series.chains if L is None or chain.L == L]
    points = [point for point in series.points if L is None or point.L == L]
    config, task, first = series.run.info["config"], series.task, chains[0]
    per_seed = 1 + max(chain.chain for chain in chains)
    seeds = sorted({chain.seed for chain in chains})
    samples = [
        _sample(series, chain, 1 + chain.chain + per_seed * seeds.index(chain.seed), questions) for chain in chains
    ]
    model, usage = f"hyperscale/{series.model}", ModelUsage()
    for chain in chains:
        usage += _usage(chain)
    spec = EvalSpec(
        created=date.isoformat(),
        run_id=series.run.name,
        task=task.name,
        task_id=f"{task.name}-{series.arm}",
        task_version=first.task_version,
        task_args={"L": L} if L else {},
        dataset=EvalDataset(name=task.name, samples=len(series.problems), sample_ids=list(series.problems)),
        model=model,
        model_args={**series.compression, "dtype": first.dtype},
        model_generate_config=GenerateConfig(
            **{name: config[name] for name in ("temperature", "top_p") if config.get(name) is not None},
            top_k=config.get("top_k") or None,
            max_tokens=L or series.longest,
        ),
        config=EvalConfig(limit=config.get("limit"), epochs=per_seed * len(seeds)),
        packages=series.run.info.get("versions") or {},
        tags=[series.arm],
        metadata={"run": series.run.name, "hardware": series.run.info.get("hardware") or {}},
    )
    results = EvalResults(
        total_samples=len(samples),
        completed_samples=len(samples),
        scores=[_score(task.grader, point) for point in reversed(points)],
    )
    ended = date + timedelta(seconds=max(chain.seconds for chain in chains))
    return EvalLog(
        status="success" if finished else "started",
        eval=spec,
        results=results,
        stats=EvalStats(started_at=date.isoformat(), completed_at=ended.isoformat(), model_usage={model: usage}),
        samples=samples,
    )


def _sample(series: Series, chain: Sample, epoch: int, questions: Mapping[ProblemKey, Question]) -> "EvalSample":
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    question = questions.get((chain.task, chain.problem, chain.question_hash))
    prompt = question.prompt if question else _UNKNOWN
    message = ChatMessageAssistant(content=chain.text, source="generate")
    model = f"hyperscale/{series.model}"
    costs = {"kv_reads": chain.whole.kv_reads, "peak_kv": chain.whole.peak_kv, "logprob": chain.whole.logprob}
    cuts = [
        {"L": cut.L, "tokens": cut.tokens, "kv_reads": cut.kv_reads, "peak_kv": cut.peak_kv, "answer": cut.answer}
        | {"correct": cut.correct, "forced": cut.forced.answer if cut.forced else None}
        for cut in chain.cuts
    ]
    return EvalSample(
        id=chain.problem,
        epoch=epoch,
        input=prompt,
        target=(question.target if question else None) or "",
        messages=[ChatMessageUser(content=prompt, source="input"), message],
        output=ModelOutput(
            model=model,
            choices=[
                ChatCompletionChoice(message=message, stop_reason="stop" if chain.finish == "stop" else "max_tokens")
            ],
            usage=_usage(chain),
            time=chain.seconds,
        ),
        scores={
            series.task.grader: Score(
                value=CORRECT if chain.whole.correct else INCORRECT,
                answer=chain.whole.answer,
                explanation=None if chain.whole.answer is not None else "no answer",
                metadata=costs,
            )
        },
        metadata={"seed": chain.seed, "chain": chain.chain, "L": chain.L, "level": chain.level, **costs, "cuts": cuts},
        model_usage={model: _usage(chain)},
        total_time=chain.seconds,
    )


def _usage(chain: Sample) -> Any:
    from inspect_ai.model import ModelUsage

    total = chain.prompt_tokens + chain.tokens
    return ModelUsage(input_tokens=chain.prompt_tokens, output_tokens=chain.tokens, total_tokens=total)


def _score(grader: str, point: MeasuredPoint) -> "EvalScore":
    """A point: its accuracy with its standard error, and its costs per problem."""
    from inspect_ai.log import EvalMetric, EvalScore

    row = point.row()
    values = {"accuracy": row["accuracy"] / 100, "stderr": row["accuracy_se"] / 100}
    values |= {name: row[name] for name in ("realised_cr", *COSTS)}
    return EvalScore(
        name=grader,
        scorer=grader,
        reducer=f"W{point.W}-L{point.L}",
        params={"vote": point.vote},
        scored_samples=len(point.problems),
        metrics={name: EvalMetric(name=name, value=value) for name, value in values.items() if math.isfinite(value)},
    )
