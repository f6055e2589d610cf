"""What a run would do and need, told without weights, tokenizer, data or network: ``hyperscale run --dry-run``.

What is at hand is measured: generated problems, files given with --data, the tokenizer of a local folder. The rest is
taken from the task files and models.yaml, and said to be an estimate.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import models
from hyperscale.models.registry import shape_of
from hyperscale.planning import measured_costs
from hyperscale.planning.arms import Arm
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.planner import Plan, Point, make_plan
from hyperscale.planning.prediction import Predictor
from hyperscale.planning.roofline import GIB, USABLE, Gpu, Roofline, chains_that_fit, find_gpu, identify_gpu
from hyperscale.run import identity
from hyperscale.run.config import resolve
from hyperscale.run.config.schema import RunConfig
from hyperscale.run.prepare import answer_room, load_task, make_grid
from hyperscale.tasks.datasets import GeneratedProblems
from hyperscale.utils.hub import load_tokenizer

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method
    from hyperscale.tasks.task import Doc, Task

_CHARS_PER_TOKEN = 3.0  # of mathematics and code, in the vocabularies of the models that are known


@dataclass(frozen=True)
class Need:
    """Memory that an arm takes at most, in bytes, weights not counted.

    Attributes:
        arm: The method at its CR.
        length: The largest L of its points.
        chain: Cache of one chain at that L.
        widest: Cache of the W chains of the point that takes most.
        together: Chains of that L that the GPU holds at a time, beside the weights; 0 without a GPU.
    """

    arm: Arm
    length: int
    chain: float
    widest: float
    together: int


@dataclass(frozen=True)
class Forecast:
    """A plan with what it needs.

    Attributes:
        config: The resolved configuration.
        plan: The points.
        methods: The arms, in order.
        counts: Number of problems of each task.
        shapes: The tasks as the planner sees them.
        estimated: Tasks whose prompt lengths are typical ones, not measured.
        dtype: Of the weights, and of the cache unless the configuration says else.
        weights: Bytes of the weights, or None if unknown.
        needs: Memory by arm.
        gpu: The GPU planned for, if any.
        roofline: The model on that GPU, if its figures are known.
        notes: What is missing for a real run.
    """

    config: RunConfig
    plan: Plan
    methods: tuple[Arm, ...]
    counts: dict[str, int]
    shapes: list[TaskShape]
    estimated: frozenset[str]
    dtype: str
    weights: int | None
    needs: tuple[Need, ...]
    gpu: Gpu | None
    roofline: Roofline | None
    notes: tuple[str, ...]


def make(config: RunConfig, gpu: str | None = None, folder: Path | None = None) -> Forecast:
    """Plan a run.

    Args:
        config: As the user asked for it.
        gpu: Name of a GPU in ``gpus.yaml``, or a size like ``48GiB``; the one of this machine if None.
        folder: Where the run would be stored; finished runs beside it tell what chains cost.

    Raises:
        HyperscaleError: Anything named does not exist or fit together, or no point fits the budget.
    """
    config = resolve.resolve(config)
    tasks = [load_task(config, name) for name in config.tasks]
    found = models.find(config.model)
    asked = [(name, cr) for name in config.methods for cr in config.crs_of(name)]
    planned = find_gpu(gpu) if gpu else None
    from hyperscale import methods  # the first to import torch, so that other mistakes are reported at once

    kinds = {name: methods.checkpoint(name) for name, _ in asked}
    unmade = [name for name, kind in kinds.items() if kind and kind not in found.retrofits]
    for name, cr in asked:
        if kinds[name] and name not in unmade:
            models.resolve(config.model, name, cr)  # refuses a CR that is not offered
    made = {(name, cr): methods.create(name, cr=cr, **config.params.get(name, {})) for name, cr in asked}
    arms = tuple(Arm(name, cr, method.length_invariant) for (name, cr), method in made.items())
    planned = planned or _here()
    shape = shape_of(config.model, found.base)
    dtype = _dtype(config, planned, found.base)
    tokenizer = load_tokenizer(found.base) if Path(found.base).is_absolute() else None
    looked = [_look(task, config, tokenizer) for task in tasks]
    shapes = [task for task, _, _ in looked]
    line = Roofline.of(planned, shape, dtype, config.kv_dtype)
    known = _earlier(config, folder, tasks, dict(zip(arms, made.values(), strict=True)), unmade)
    speed = (lambda chain: line.chain_seconds(chain, config.batch_size or 1)) if line else None
    predictor = Predictor(shape.entry_bytes(dtype, config.kv_dtype), known, speed)
    budget = Budget.parse(config.budget, config.axis)
    plan = make_plan(budget, make_grid(config), shapes, arms, shape.entry_bytes(dtype), predictor)
    weights = shape.weight_bytes(dtype)
    needs = tuple(_need(arm, plan, predictor.entry_bytes, shapes, weights or 0, planned) for arm in arms)
    return Forecast(
        config,
        plan,
        arms,
        {each.name: count for each, count, _ in looked},
        shapes,
        frozenset(each.name for each, _, measured in looked if not measured),
        dtype,
        weights,
        needs,
        planned,
        line,
        (*_notes(config, unmade, planned, weights), *methods.notes(made.values())),
    )


def _here() -> Gpu | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return identify_gpu(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory)


def _dtype(config: RunConfig, gpu: Gpu | None, path: str) -> str:
    if config.dtype != "auto":
        return config.dtype
    on_cpu = config.device == "cpu" or (config.device == "auto" and gpu is None and Path(path).is_absolute())
    return "float32" if on_cpu else "bfloat16"


def _look(task: "Task", config: RunConfig, tokenizer: Any) -> tuple[TaskShape, int, bool]:
    """A task's shape, its number of problems, and whether the prompts were measured."""
    data = config.data.get(task.name)
    if data is None and not isinstance(task.origin, GeneratedProblems):
        count = task.size if config.limit is None else min(task.size, config.limit)
        return _shape(task, task.prompt_tokens, config), count, False
    docs = task.docs(config.limit, data)
    tokens = sum(_tokens(task, doc, tokenizer) for doc in docs) / len(docs)
    return _shape(task, round(tokens), config), len(docs), tokenizer is not None


def _tokens(task: "Task", doc: "Doc", tokenizer: Any) -> float:
    return len(task.prompt_ids(doc, tokenizer)) if tokenizer else len(doc.prompt) / _CHARS_PER_TOKEN


def _shape(task: "Task", tokens: int, config: RunConfig) -> TaskShape:
    return TaskShape(task.name, tokens, task.base_length, task.lengths, answer_room(config))


def _earlier(
    config: RunConfig, folder: Path | None, tasks: "list[Task]", made: "dict[Arm, Method]", unmade: list[str]
) -> dict[measured_costs.Key, measured_costs.Evidence]:
    """Finished runs beside the folder; a plan generates nothing, so there is no pilot."""
    if folder is None or config.predict == "closed":
        return {}
    runnable = {arm: method for arm, method in made.items() if arm.method not in unmade}
    checkpoints = {arm: models.resolve(config.model, arm.method, arm.CR) for arm in runnable}
    return measured_costs.earlier(folder.parent, folder, identity.of(config, tasks, runnable, checkpoints))


def _need(arm: Arm, plan: Plan, entry_bytes: int, shapes: list[TaskShape], weights: int, gpu: Gpu | None) -> Need:
    """Memory by the closed form, whatever is predicted: a single long chain takes that much."""
    points = [point for point in plan.points if point.arm == arm]
    if not points:
        return Need(arm, 0, 0.0, 0.0, 0)
    length = max(point.L for point in points)
    prompts = {shape.name: shape for shape in shapes}

    def peak(point: Point) -> float:
        return Costs.predict(prompts[point.task], 1, point.L, arm.CR, entry_bytes).peak_bytes

    chain = max(peak(point) for point in points if length == point.L)
    widest = max(point.W * peak(point) for point in points)
    return Need(arm, length, chain, widest, chains_that_fit(gpu, weights, chain) if gpu else 0)


def _notes(config: RunConfig, unmade: list[str], gpu: Gpu | None, weights: int | None) -> list[str]:
    notes = ["cache of a compressed chain is taken to be that of a vanilla chain divided by the nominal CR"]
    if weights is not None:
        notes.append(f"weights take {weights / GIB:.2f} GiB")
    if gpu:
        notes.append(f"{gpu.name}: {USABLE:.0%} of {gpu.memory / GIB:.0f} GiB are counted on")
    else:
        notes.append("no GPU found: name one with --gpu to see whether the run fits it")
    notes += [f"{name} cannot run yet: {models.no_retrofit(config.model, kind=name)}" for name in unmade]
    return notes
