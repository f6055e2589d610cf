"""Grades the chains of a run again, from their text: nothing is generated, no model is loaded."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import models, tasks
from hyperscale.errors import ResultsError
from hyperscale.methods.names import VANILLA
from hyperscale.results import grading
from hyperscale.results.manifest import SAMPLES, read_info, write_info
from hyperscale.results.samples import Sample
from hyperscale.results.store import Store
from hyperscale.scoring import graders
from hyperscale.scoring.sandbox import pool
from hyperscale.tasks.datasets import data_by_task
from hyperscale.tasks.task import Doc, Task, prompt_hash
from hyperscale.utils.files import complete_length

if TYPE_CHECKING:
    from hyperscale.models.prompts import PromptFormat
    from hyperscale.results.points import MeasuredPoint

_BATCH = 64  # chains graded at once, so that programs run side by side


@dataclass(frozen=True)
class Regraded:
    """What grading again gave.

    Attributes:
        folder: The run's folder.
        chains: Chains graded.
        answers: Chains with another answer at some L than before.
        verdicts: Chains with another verdict at some L than before.
        points: The points, rebuilt.
        notes: What was left out of the chains, a sentence each.
    """

    folder: Path
    chains: int
    answers: int
    verdicts: int
    points: "list[MeasuredPoint]"
    notes: tuple[str, ...] = ()


def regrade(
    folder: Path,
    step: Callable[[int, int], None] = lambda done, of: None,
    sandbox: str = "auto",
    data: Mapping[str, str] | None = None,
) -> Regraded:
    """Grade every chain of a run again with the graders of today, replace its samples and rebuild its points.

    Answers and verdicts of all chains are replaced at once: a crash leaves the old file or the new one. The versions
    of the tasks become today's, so that the run can be resumed.

    Args:
        folder: The run's folder.
        step: Told how many chains of how many are graded.
        sandbox: Where programs that the model wrote run, as `sandbox.choose.choose_level` takes it.
        data: Task name to the file or folder of its problems; "" names the run's only task. Where the run had them if
            not given.

    Raises:
        ConfigError: ``data`` names no task of the run, or not which.
        ResultsError: The folder holds no run, is in use or corrupt, or a problem is not what the chains were asked.
        TaskError, SandboxError: A task's problems are missing, or programs cannot be run here.
    """
    info = read_info(folder)  # before the store, which would make a folder that is not there
    require_chains(folder)
    with Store(folder, info) as store:
        names: dict[str, None] = {}
        writers: set[str] = set()  # models
        for sample in store.samples():
            names[sample.task] = None
            writers.add(sample.model)
        files = {**(info.get("data") or {}), **data_by_task(data or {}, tuple(names))}
        graded_tasks = {name: problems(name, info, files.get(name)) for name in names}
        pool.choose_shared_level(
            graders.select_program_graders({task.grader for task, _ in graded_tasks.values()}),
            sandbox,
            built_in_model=all(map(models.is_built_in, writers)),
        )
        counts = {"chains": 0, "answers": 0, "verdicts": 0}

        # Streamed from the old file into the new one: neither is held in memory.
        def graded() -> Iterator[Sample]:
            for old, new in _grade(store.samples(), graded_tasks):
                counts["chains"] += 1
                counts["answers"] += grading.answers(old) != grading.answers(new)
                counts["verdicts"] += grading.verdicts(old) != grading.verdicts(new)
                yield new
                step(counts["chains"], len(store))

        store.replace(graded())
        versions = {name: task.version for name, (task, _) in graded_tasks.items()}
        if versions.items() - (info.get("tasks") or {}).items():
            info["tasks"] = {**(info.get("tasks") or {}), **versions}
            write_info(folder, info)
        points = store.write_points()
        notes = tuple(store.notes)
    return Regraded(folder, **counts, points=points, notes=notes)


def require_chains(folder: Path) -> None:
    """Refuse a folder without chains: its points would be overwritten by none.

    Raises:
        ResultsError: ``samples.jsonl`` is missing, or holds no finished chain.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise ResultsError(f"{folder} has no {SAMPLES}, so there is nothing to score: restore the file")
    if not complete_length(path):
        raise ResultsError(f"{path} holds no finished chain, so there is nothing to score: run its command again")


def problems(name: str, info: dict[str, Any], data: str | None) -> tuple[Task, list[Doc]]:
    """A task and the problems of a run with this description."""
    config = info["config"]
    # A task of the user's own as its file says it today, which may be why the run is graded again.
    file = (info.get("task_files") or {}).get(name, {}).get("path")
    task = tasks.load(file if file and Path(file).is_file() else name).with_parameters(
        **(config.get("task_params") or {}).get(name, {})
    )
    prompt_format = None if task.context is None else _prompt_format(info)
    return task, task.docs(config.get("limit"), data, prompt_format)


def _prompt_format(info: dict[str, Any]) -> "PromptFormat":
    """How a run's prompts were made: a context task's are as long as the tokenizer of its first arm says."""
    from hyperscale.models.prompts import PromptFormat
    from hyperscale.utils.hub import load_tokenizer

    config = info["config"]
    # Not the base's: a run without vanilla never saw it, and a retrofit alone has none.
    method = next(iter(config.get("methods") or ()), VANILLA)
    CR = 1.0 if method == VANILLA else next(iter(config.get("crs") or ()), 1.0)
    return PromptFormat(
        load_tokenizer(models.resolve(config["model"], method, CR).path),
        template=config.get("chat_template"),
        system=config.get("system_prompt"),
        arguments=config.get("template_args"),
        date=datetime.fromisoformat(info["date"]),
        marks=models.find(config["model"]).thinking,
    )


def _grade(
    samples: Iterable[Sample], graded_tasks: Mapping[str, tuple[Task, Sequence[Doc]]]
) -> Iterator[tuple[Sample, Sample]]:
    """Each sample as it was, and with new answers and verdicts; in their order."""
    grader = {name: task.new_grader() for name, (task, _) in graded_tasks.items()}
    docs = {name: {doc.id: doc for doc in docs} for name, (_, docs) in graded_tasks.items()}
    samples = iter(samples)
    while part := list(islice(samples, _BATCH)):
        # Verdicts of a task's chains are asked for together, as programs run side by side; then all are put in order.
        verdicts: dict[int, list[bool]] = {}
        answers = [grading.extract_answers(grader[sample.task], sample) for sample in part]
        for name in dict.fromkeys(sample.task for sample in part):
            places = [i for i, sample in enumerate(part) if sample.task == name]
            targets = {i: doc_of(part[i], docs[name]).target for i in places}
            pairs = [(answer, targets[i]) for i in places for answer in answers[i] if answer is not None]
            results = iter(grader[name].correct_many(pairs))
            for i in places:
                verdicts[i] = [answer is not None and next(results) for answer in answers[i]]
        for i, sample in enumerate(part):
            version = graded_tasks[sample.task][0].version
            yield sample, grading.with_verdicts(sample, answers[i], verdicts[i], task_version=version)


def doc_of(sample: Sample, docs: dict[str, Doc]) -> Doc:
    """The problem a chain was asked; refused if it has changed since."""
    name = f"{sample.task}/{sample.problem}"
    doc = docs.get(sample.problem)
    if doc is None:
        raise ResultsError(
            f"the run has chains of {name}, which the task lacks today: pass the data it was run with, --data PATH"
        )
    if sample.question_hash != prompt_hash(doc.prompt):
        raise ResultsError(
            f"the prompt of {name} has changed since its chains were made: "
            "grade them with the version of hyperscale, and with --data the data, that made them"
        )
    return doc
