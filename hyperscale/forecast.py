"""What a run would do and need, told without weights, tokenizer, data or network: ``hyperscale run --dry-run``.

What is at hand is measured: generated problems, files given with --data, the tokenizer of a local folder. The rest is
taken from the task files and models.yaml, and said to be an estimate.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale import config as configs
from hyperscale import models
from hyperscale.budget import Budget, Costs, TaskShape
from hyperscale.config import RunConfig
from hyperscale.documents import Generated
from hyperscale.errors import ConfigError
from hyperscale.planner import Arm, Plan, make_plan
from hyperscale.preparation import load_task, load_tokenizer, make_grid
from hyperscale.shapes import shape_of

if TYPE_CHECKING:
    from hyperscale.tasks import Doc, Task

GIB = 2**30
GPUS = {"A100-40": 40, "A100": 80, "H100": 80, "H200": 140, "B200": 179, "L40S": 45, "L4": 22, "A10": 22, "RTX4090": 24}
"""Memory in GiB, by the names people use."""
USABLE = 0.9  # of a GPU's memory: the rest is for activations and the allocator
_CHARS_PER_TOKEN = 3.0  # of mathematics and code, in the vocabularies of the models that are known


@dataclass(frozen=True)
class Gpu:
    """A GPU to plan for: its name and its memory in bytes."""

    name: str
    memory: float


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
        dtype: Of weights and cache.
        weights: Bytes of the weights, or None if unknown.
        needs: Memory by arm.
        gpu: The GPU planned for, if any.
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
    notes: tuple[str, ...]


def make(config: RunConfig, gpu: str | None = None) -> Forecast:
    """Plan a run.

    Args:
        config: As the user asked for it.
        gpu: Name of a GPU in `GPUS`, or a size like ``48GiB``; the one of this machine if None.

    Raises:
        HyperscaleError: Anything named does not exist or fit together, or no point fits the budget.
    """
    config = configs.resolve(config)
    tasks = [load_task(config, name) for name in config.tasks]
    found = models.find(config.model)
    asked = [(name, cr) for name in config.methods for cr in config.crs_of(name)]
    retrofits = [(name, cr) for name, cr in asked if name in models.NEEDS_RETROFIT]
    if found.dms:
        for name, cr in retrofits:
            models.resolve(config.model, name, cr)  # refuses a CR that is not offered
    planned = named(gpu) if gpu else None
    from hyperscale import methods  # the first to import torch, so that other mistakes are reported at once

    made = {(name, cr): methods.create(name, cr=cr, **config.params.get(name, {})) for name, cr in asked}
    arms = tuple(Arm(name, cr, method.length_invariant) for (name, cr), method in made.items())
    planned = planned or _here()
    shape = shape_of(config.model, found.base)
    dtype = _dtype(config, planned, found.base)
    tokenizer = load_tokenizer(found.base) if Path(found.base).is_absolute() else None
    looked = [_look(task, config, tokenizer) for task in tasks]
    shapes = [task for task, _, _ in looked]
    plan = make_plan(
        Budget.parse(config.budget, config.axis), make_grid(config), shapes, arms, shape.entry_bytes(dtype)
    )
    weights = shape.weight_bytes(dtype)
    needs = tuple(_need(arm, plan, shapes, shape.entry_bytes(dtype), weights or 0, planned) for arm in arms)
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
        tuple(_notes(config, bool(retrofits) and not found.dms, planned, weights)),
    )


def named(gpu: str) -> Gpu:
    """A GPU by its name or memory.

    Raises:
        ConfigError: It is neither.
    """
    names = {re.sub(r"[\s_-]", "", name).upper(): name for name in GPUS}
    if name := names.get(re.sub(r"[\s_-]", "", gpu).upper()):
        return Gpu(name, GPUS[name] * GIB)
    if (size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*Gi?B", gpu)) and float(size[1]) > 0:
        return Gpu(gpu, float(size[1]) * (GIB if "i" in gpu else 1e9))
    raise ConfigError(f"unknown GPU {gpu!r}: choose one of {', '.join(GPUS)}, or give its memory like 48GiB")


def _here() -> Gpu | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory)


def _dtype(config: RunConfig, gpu: Gpu | None, path: str) -> str:
    if config.dtype != "auto":
        return config.dtype
    on_cpu = config.device == "cpu" or (config.device == "auto" and gpu is None and Path(path).is_absolute())
    return "float32" if on_cpu else "bfloat16"


def _look(task: "Task", config: RunConfig, tokenizer: Any) -> tuple[TaskShape, int, bool]:
    """A task's shape, its number of problems, and whether the prompts were measured."""
    data = config.data.get(task.name)
    if data is None and not isinstance(task.origin, Generated):
        count = task.size if config.limit is None else min(task.size, config.limit)
        return _shape(task, task.prompt_tokens), count, False
    docs = task.docs(config.limit, data)
    tokens = sum(_tokens(task, doc, tokenizer) for doc in docs) / len(docs)
    return _shape(task, round(tokens)), len(docs), tokenizer is not None


def _tokens(task: "Task", doc: "Doc", tokenizer: Any) -> float:
    return len(task.prompt_ids(doc, tokenizer)) if tokenizer else len(doc.prompt) / _CHARS_PER_TOKEN


def _shape(task: "Task", tokens: int) -> TaskShape:
    return TaskShape(task.name, tokens, task.base_length, task.lengths)


def _need(arm: Arm, plan: Plan, shapes: list[TaskShape], entry_bytes: int, weights: int, gpu: Gpu | None) -> Need:
    points = [point for point in plan.points if point.arm == arm]
    if not points:
        return Need(arm, 0, 0.0, 0.0, 0)
    length = max(point.L for point in points)
    prompts = {shape.name: shape for shape in shapes}
    longest = {point.task for point in points if length == point.L}
    chain = max(Costs.predict(prompts[task], 1, length, arm.CR, entry_bytes).peak_bytes for task in longest)
    room = gpu.memory * USABLE - weights if gpu else 0.0
    return Need(arm, length, chain, max(point.costs.peak_bytes for point in points), max(int(room // chain), 0))


def _notes(config: RunConfig, unmade: bool, gpu: Gpu | None, weights: int | None) -> list[str]:
    notes = ["cache of a compressed chain is predicted as that of a vanilla chain divided by the nominal CR"]
    if weights is not None:
        notes.append(f"weights take {weights / GIB:.2f} GiB")
    if gpu:
        notes.append(f"{gpu.name}: {USABLE:.0%} of {gpu.memory / GIB:.0f} GiB are counted on")
    else:
        notes.append("no GPU found: name one with --gpu to see whether the run fits it")
    if unmade:
        notes.append(f"dms cannot run yet: {models.no_retrofit(config.model)}")
    return notes
