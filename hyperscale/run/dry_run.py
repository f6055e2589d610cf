"""Plans a run and its needs without weights, tokenizer, data or network: ``hyperscale run --dry-run``.

Prompts are measured where they are at hand: generated problems, files given with --data, the tokenizer of a local
folder. Other sizes come from the task files and models.yaml, and are said to be estimates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hyperscale import models
from hyperscale.engines.config_check import check_config, rope_notes
from hyperscale.methods.arm import Arm
from hyperscale.methods.names import SELECTORS
from hyperscale.models.checkpoint import read_checkpoint_config, shape_of
from hyperscale.models.gate_files import gate_notes
from hyperscale.models.weight_files import check_formats
from hyperscale.planning import measured_costs, plan_file
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.planner import Plan, PlannedPoint, make_plan
from hyperscale.planning.prediction import Predictor
from hyperscale.planning.roofline import GIB, Gpu, Roofline, chains_that_fit, find_gpu
from hyperscale.results.manifest import read_date
from hyperscale.run import identity, planned_run
from hyperscale.run.batch_choice import with_batch_size
from hyperscale.run.config import resolve
from hyperscale.run.config.engine_choice import with_engine
from hyperscale.run.config.resolve import ResolvedConfig
from hyperscale.run.config.schema import RunConfig
from hyperscale.run.context import fit_lengths, smallest_context
from hyperscale.run.placement import plan_placement
from hyperscale.run.planned_run import (
    PlannedRun,
    PlannedTask,
    check_lengths,
    entry_bytes_by_method,
    load_task,
    task_shape,
    usable_memory,
)
from hyperscale.run.prompting import (
    check_prompts,
    likelihood_notes,
    make_prompt,
    make_prompt_format,
    prompt_notes,
    scored_length,
    with_insertions,
)
from hyperscale.tasks.datasets import GeneratedProblems
from hyperscale.tasks.own_lm_eval import LmEvalProblems
from hyperscale.tasks.own_problems import FileProblems, FunctionProblems
from hyperscale.utils.hub import cached_config, load_tokenizer

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method
    from hyperscale.models.prompts import PromptFormat
    from hyperscale.tasks.task import Doc, Task

_UNKNOWN_SIZE = 100  # problems, where neither a task's file nor a limit says how many there are
_CHARS_PER_TOKEN = 3.0  # of mathematics and code, in the vocabularies of the models that are known


@dataclass(frozen=True)
class MemoryNeed:
    """The most memory that an arm takes, in bytes, without the weights.

    Attributes:
        arm: The method at its CR.
        L: The largest L of its points.
        chain_bytes: Cache of one chain at that L.
        widest: Cache of the W chains of the point that takes most.
        fitting: Chains of that L that the GPU holds at a time, beside the weights; 0 without a GPU.
    """

    arm: Arm
    L: int
    chain_bytes: float
    widest: float
    fitting: int


@dataclass(frozen=True)
class DryRun(PlannedRun):
    """A planned run with what it needs.

    Attributes:
        weights: Bytes of the weights, or None if unknown.
        needs: Memory by arm.
        gpu: The GPU planned for, if any.
        notes: What the figures assume, and what is missing for a real run.
    """

    weights: int | None
    needs: tuple[MemoryNeed, ...]
    gpu: Gpu | None
    notes: tuple[str, ...]


def plan_dry_run(
    settings: RunConfig, gpu: str | None = None, folder: Path | None = None, repeated: Path | None = None
) -> DryRun:
    """Plan a run.

    Args:
        settings: As the user asked for them.
        gpu: Name of a GPU in ``gpus.yaml``, or a size like ``48GiB``; the one of this machine if None.
        folder: Where the run would be stored; finished runs beside it show what chains cost.
        repeated: A plan.json to repeat, or the folder of its run.

    Raises:
        HyperscaleError: Anything named does not exist or fit together, or no point fits the budget.
    """
    config = resolve.resolve_config(settings)
    tasks = [load_task(config, name) for name in config.tasks]
    model = models.find(config.model)
    target = find_gpu(gpu) if gpu else None
    from hyperscale import methods  # the first to import torch, so that other mistakes are reported at once

    # A method whose retrofit nobody has made can be planned, with a note; a CR that is not offered is refused.
    retrofits = {name: methods.retrofit_kind(name) for name in config.methods}
    unavailable = [name for name, kind in retrofits.items() if kind and kind not in model.retrofits]
    paths = [model.base]
    for arm in config.arms:
        if arm.method not in unavailable:
            paths.append(models.resolve(config.model, arm.method, arm.CR).path)
    known = [path for path in dict.fromkeys(paths) if Path(path).is_absolute() or cached_config(path)]
    for path in known:
        check_config(read_checkpoint_config(path))
        if Path(path).is_absolute():
            check_formats(Path(path))
    method_of_arm: dict[Arm, Method] = {}
    for arm in config.arms:
        method = methods.create(arm.method, cr=arm.CR, **config.params_of(arm))
        method_of_arm[replace(arm, length_invariant=method.length_invariant)] = method
    # The model's base stands for all its checkpoints: they share tokenizer and shapes.
    target = target or planned_run.local_gpu(config.device)
    config = with_engine(_place(config, target, model.base), method_of_arm, known, folder)
    target = target and target.times(config.tensor_parallel)
    shape = shape_of(config.model, model.base)
    prompt_format = None
    if Path(model.base).is_absolute():
        date = (folder and read_date(folder)) or datetime.now()
        tokenizer = load_tokenizer(model.base)
        prompt_format = make_prompt_format(config, tokenizer, date)
        opened = prompt_format.prompt("What is 1 + 1?").opened
        config = with_insertions(config, tokenizer, prompt_format, [(task, opened) for task in tasks])
    context = smallest_context(known) or model.context or None
    planned_tasks = tuple(_planned_task(task, config, prompt_format, context) for task in tasks)
    entry_bytes = entry_bytes_by_method(config, shape)
    most_bytes = max(entry_bytes.values())
    roofline = Roofline.of(target, shape, config.dtype, config.kv_dtype, most_bytes, usable_memory(config))
    measured = _earlier_costs(config, folder, tasks, method_of_arm, unavailable)
    shapes, base_bytes = [task.shape for task in planned_tasks], shape.entry_bytes(config.dtype)
    check_lengths(method_of_arm.values(), config.grid, shapes)
    arms, placement = tuple(method_of_arm), plan_placement(config)
    predictor = Predictor(most_bytes, measured, bytes_of_method=entry_bytes)
    config = with_batch_size(config, target, shape, planned_tasks, arms, predictor, placement.engines)
    speed = (lambda chain: roofline.chain_seconds(chain, config.batch_size)) if roofline else None
    predictor = replace(predictor, speed=speed)  # which depends on how many chains share the GPU
    runs = None
    if repeated is None:
        plan = make_plan(config.budget, config.grid, shapes, arms, base_bytes, predictor, alike=config.alike)
    else:
        plan, runs = plan_file.repeat(repeated, config.budget, arms, shapes, base_bytes)
    weights = shape.weight_bytes(config.dtype)
    return DryRun(
        config=config,
        plan=plan,
        arms=arms,
        tasks=planned_tasks,
        predictor=predictor,
        base_bytes=base_bytes,
        prompts=prompt_format.kind if prompt_format else "",
        weights=weights,
        needs=tuple(
            _memory_need(
                *(arm, plan, predictor.entry_bytes_of(arm), shapes), weights or 0, target, usable_memory(config)
            )
            for arm in method_of_arm
        ),
        gpu=target,
        roofline=roofline,
        repeated=None if runs is None else tuple(runs),
        placement=placement,
        notes=(
            *filter(None, (task.note for task in planned_tasks)),
            *([] if context else ["the model's context is not known here: lengths were not held against it"]),
            *config.notes,
            *likelihood_notes(config),
            *_notes(config, unavailable, target, weights),
            *(prompt_notes(prompt_format, config) if prompt_format else ()),
            *methods.notes(method_of_arm.values()),
            *gate_notes(known),
            *rope_notes(known),
        ),
    )


def _place(config: ResolvedConfig, gpu: Gpu | None, path: str) -> ResolvedConfig:
    """The configuration with the device and the dtype that a real run would have.

    A model of the hub is planned in bfloat16 where no GPU is known: nobody runs it in float32 on a CPU.
    """
    on_cpu = config.device == "cpu" or (config.device == "auto" and gpu is None and Path(path).is_absolute())
    device: Literal["cpu", "cuda"] = "cpu" if gpu is None else "cuda"
    return config.placed(device=device, dtype="float32" if on_cpu else "bfloat16")


def _planned_task(
    task: "Task", config: ResolvedConfig, prompt_format: "PromptFormat | None", context: int | None
) -> PlannedTask:
    """A task with its prompts measured, or of typical length if they are not at hand, and the lengths that fit."""
    data = config.data.get(task.name)
    if task.context is not None:  # as long as its prompts are to be, whatever they say
        count = task.size if config.limit is None else min(task.size, config.limit)
        fitted, note = fit_lengths(task, task.context, context, config)
        if prompt_format is None:
            return PlannedTask(task_shape(fitted, task.prompt_tokens, config), count, note=note)
        docs = task.docs(1, data, prompt_format)  # which take a while to fill; the others are as long but for a word
        check_prompts(docs, prompt_format)
        return PlannedTask(task_shape(fitted, _prompt_tokens(docs[0], prompt_format), config), count, note=note)
    if data is None and not _is_at_hand(task):
        size = task.size or config.limit or _UNKNOWN_SIZE
        count = size if config.limit is None else min(size, config.limit)
        task, note = fit_lengths(task, task.prompt_tokens, context, config)
        if not task.size:
            unknown = f"{task.name}: only its data tell how many problems it has; {count} are taken here"
            note = f"{note}; {unknown}" if note else unknown
        return PlannedTask(task_shape(task, task.prompt_tokens, config), count, is_estimate=True, note=note)
    docs = task.docs(config.limit, data, prompt_format if task.is_rendered else None)
    if prompt_format is not None:
        check_prompts(docs, prompt_format)
    tokens = [_prompt_tokens(doc, prompt_format) for doc in docs]
    if task.is_likelihood:
        L = scored_length(round(_scored_tokens(doc, prompt_format)) for doc in docs)
        task = replace(task, lengths=(L,), base_length=L)
        options = sum(len(doc.options) for doc in docs) / len(docs)
        shape = task_shape(task, sum(tokens) / len(tokens), config, options)
        return PlannedTask(shape, len(docs), is_estimate=prompt_format is None)
    task, note = fit_lengths(task, round(max(tokens)), context, config)
    shape = task_shape(task, sum(tokens) / len(tokens), config)
    return PlannedTask(shape, len(docs), is_estimate=prompt_format is None, note=note)


def _is_at_hand(task: "Task") -> bool:
    """Whether a task's problems are made or lie here, so that their prompts can be measured."""
    origin = task.origin
    if isinstance(origin, LmEvalProblems):
        return origin.is_local
    return isinstance(origin, GeneratedProblems | FileProblems | FunctionProblems)


def _prompt_tokens(doc: "Doc", prompt_format: "PromptFormat | None") -> float:
    if prompt_format is None:
        return len(doc.prompt) / _CHARS_PER_TOKEN
    return len(make_prompt(doc, prompt_format).ids)


def _scored_tokens(doc: "Doc", prompt_format: "PromptFormat | None") -> float:
    """Tokens of all options of a problem."""
    if prompt_format is None:
        return sum(len(option.continuation) for option in doc.options) / _CHARS_PER_TOKEN
    return sum(len(prompt_format.encode_pair(option.context, option.continuation)[1]) for option in doc.options)


def _earlier_costs(
    config: ResolvedConfig,
    folder: Path | None,
    tasks: "list[Task]",
    method_of_arm: "Mapping[Arm, Method]",
    unavailable: list[str],
) -> dict[measured_costs.Key, measured_costs.MeasuredCosts]:
    """Costs of finished runs beside the folder; a plan generates nothing, so there is no pilot."""
    if folder is None or config.predict == "closed":
        return {}
    runnable = {arm: method for arm, method in method_of_arm.items() if arm.method not in unavailable}
    checkpoints = {arm: models.resolve(config.model, arm.method, arm.CR) for arm in runnable}
    return measured_costs.of_earlier_runs(
        folder.parent, folder, identity.identify_run(config, tasks, runnable, checkpoints)
    )


def _memory_need(
    arm: Arm,
    plan: Plan,
    entry_bytes: int,
    shapes: list[TaskShape],
    weights: int,
    gpu: Gpu | None,
    usable: float,
) -> MemoryNeed:
    """Memory by the closed form, whatever is predicted: a single long chain takes that much."""
    points = [point for point in plan.points if point.arm == arm]
    if not points:
        return MemoryNeed(arm, 0, 0.0, 0.0, 0)
    longest = max(point.L for point in points)
    shape_of_task = {shape.name: shape for shape in shapes}

    def peak(point: PlannedPoint) -> float:
        shape, evicts = shape_of_task[point.task], arm.method not in SELECTORS
        L = point.L + shape.answer  # a forced answer comes on top
        return Costs.predict(shape, 1, L, arm.CR, entry_bytes, arm.kv_budget, evicts=evicts).peak_bytes

    chain = max(peak(point) for point in points if longest == point.L)
    widest = max(point.W * peak(point) for point in points)
    return MemoryNeed(arm, longest, chain, widest, chains_that_fit(gpu, weights, chain, usable) if gpu else 0)


def _notes(config: ResolvedConfig, unavailable: list[str], gpu: Gpu | None, weights: int | None) -> list[str]:
    notes = []
    if any(not arm.kv_budget for arm in config.arms):
        notes.append(
            "the cache of a compressed chain is estimated as that of a vanilla chain divided by the nominal CR"
        )
    if any(arm.kv_budget for arm in config.arms):
        notes.append(
            "of a budget in tokens a chain is taken to hold no more than it: a pinned prompt and recent entries may be "
            "more"
        )
    if weights is not None:
        notes.append(f"weights take {weights / GIB:.2f} GiB")
    if gpu:
        notes.append(f"{gpu.name}: {usable_memory(config):.0%} of its {gpu.memory / GIB:.0f} GiB are planned for")
    else:
        notes.append("no GPU found: name one with --gpu to see whether the run fits it")
    notes += [f"{name} cannot run yet: {models.no_retrofit(config.model, kind=name)}" for name in unavailable]
    return notes
