"""A run with its plan, and the tasks as the planner sees them: the part that a real run and a dry run share."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Self

from hyperscale import models
from hyperscale.engines import registry
from hyperscale.planning.costs import TaskShape
from hyperscale.planning.durations import Duration, duration_of, name_roofline
from hyperscale.planning.measured_costs import EARLIER, earlier_runs
from hyperscale.planning.planner import Plan, make_plan
from hyperscale.planning.roofline import USABLE

if TYPE_CHECKING:
    from hyperscale.methods.arm import Arm
    from hyperscale.methods.core.base import Method
    from hyperscale.models.shape import Shape
    from hyperscale.planning.grid import Grid
    from hyperscale.planning.measured_costs import EarlierRun
    from hyperscale.planning.prediction import Predictor
    from hyperscale.planning.roofline import Gpu, Roofline
    from hyperscale.run.config.resolve import ResolvedConfig
    from hyperscale.run.placement import Placement
    from hyperscale.tasks.task import Task


_TYPICAL_OPTIONS = 4  # of a multiple choice, where a plan has no data


@dataclass(frozen=True)
class PlannedTask:
    """A task as the planner sees it.

    Attributes:
        shape: Its lengths and the mean length of its prompts.
        count: Number of its problems that run.
        is_estimate: Whether the length of the prompts is a typical one, as they were not tokenised.
        note: What was left out of its lengths, and why.
    """

    shape: TaskShape
    count: int
    is_estimate: bool = False
    note: str | None = None


@dataclass(frozen=True)
class PlannedRun:
    """A run with its plan.

    Attributes:
        config: The resolved configuration.
        plan: The points and, from them, the chains; without points if a pilot has to measure costs first
            (`pilot.finalize_plan`).
        arms: The methods at their CRs, in the order they run.
        tasks: The tasks.
        predictor: Predicts what chains cost.
        base_bytes: Bytes of one (key, value) pair, summed over layers and KV heads, of a cache in the model's type: a
            budget in base points counts these, so that it means the same whatever the cache is kept in.
        prompts: What the prompts are: "chat template" or "plain"; empty if that is not known here.
        roofline: The model on the GPU that it runs on, or is planned for, if its figures are known.
        repeated: The runs that the costs were predicted from, of a plan made before, the folder's or that of --plan;
            None for a plan made now.
        placement: How many engines it has, of how many GPUs.
    """

    config: "ResolvedConfig"
    plan: Plan
    arms: "tuple[Arm, ...]"
    tasks: tuple[PlannedTask, ...]
    predictor: "Predictor"
    base_bytes: int
    prompts: str
    roofline: "Roofline | None"
    repeated: "tuple[EarlierRun, ...] | None" = dataclasses.field(default=None, kw_only=True)
    placement: "Placement" = dataclasses.field(kw_only=True)

    @property
    def shapes(self) -> list[TaskShape]:
        """The tasks' lengths and prompts."""
        return [task.shape for task in self.tasks]

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems of each task."""
        return {task.shape.name: task.count for task in self.tasks}

    @property
    def chains_in_flight(self) -> int:
        """Most chains that decode at a time, in all engines."""
        return self.config.batch_size * self.placement.engines

    @property
    def chains_by_arm(self) -> dict[str, int]:
        """How many chains the plan asks for, of all problems and seeds, by the name of the arm."""
        seeds = len(self.config.seeds)
        return {
            str(arm): sum(n * seeds * len(self.plan.chains(arm, task)) for task, n in self.counts.items())
            for arm in self.arms
        }

    @property
    def durations(self) -> "dict[Arm, Duration | None]":
        """How long each arm takes; None where nothing is known of the speed."""
        problems = {name: count * len(self.config.seeds) for name, count in self.counts.items()}
        # A plan for a GPU has its seconds from the roofline, others from chains that were timed.
        for_gpu = self.predictor.speed is not None and self.roofline
        source = name_roofline(self.roofline) if for_gpu and self.roofline else "measured pace"
        config = self.config
        # Of chains that were measured, those of an arm ran together, whatever their task.
        measured: dict[Arm, int] = {}
        timed: dict[Arm, dict[str, float]] = {}  # seconds a token, by task
        for (arm, task), costs in self.predictor.measured.items() if not for_gpu else ():
            if config.device == "cpu":
                measured[arm] = measured.get(arm, 0) + len(costs.chains)
            if (pace := costs.pace) is not None:
                timed.setdefault(arm, {})[task] = pace
        durations = {
            arm: duration_of(
                *(self.plan, arm, problems, config.batch_size, self.roofline),
                planned_by=source,
                paces=timed.get(arm),
                measured_together=measured.get(arm),
                # On a CPU engines share its cores.
                engines=1 if config.device == "cpu" else self.placement.engines,
            )
            for arm in self.arms
        }
        # An arm that was never timed is taken to be as fast as the slowest one that was.
        tokens = {arm: self.plan.expected_tokens(arm, problems) for arm in self.arms}
        paces = {arm: known.seconds / tokens[arm] for arm, known in durations.items() if known and tokens[arm]}
        if paces:
            slowest = max(paces, key=lambda arm: paces[arm])
            for arm, known in durations.items():
                durations[arm] = known or Duration(tokens[arm] * paces[slowest], f"pace of {slowest}")
        return durations

    @property
    def earlier_runs(self) -> "list[EarlierRun]":
        """The finished runs that costs of the plan's points are predicted from; of a repeated plan, as it says."""
        if self.repeated is not None:
            return list(self.repeated)
        keys = ((point.arm, point.task) for point in self.plan.points if point.source == EARLIER)
        return earlier_runs(self.predictor.measured, keys)

    def replanned(self, predictor: "Predictor") -> Self:
        """The run with the plan that other predictions make.

        Raises:
            BudgetError: No point fits by these.
        """
        config = self.config
        arguments = (config.budget, config.grid, self.shapes, self.arms, self.base_bytes, predictor)
        plan = make_plan(*arguments, alike=config.alike)
        return dataclasses.replace(self, plan=plan, predictor=predictor)


def entry_bytes_by_method(config: "ResolvedConfig", shape: "Shape") -> dict[str, int]:
    """Bytes of one (key, value) pair summed over layers and KV heads, as the engines of a run keep it, by method."""
    return {
        method: registry.choose(config.engine, method).entry_bytes(shape, method, config.dtype, config.kv_dtype)
        for method in config.methods
    }


def usable_memory(config: "ResolvedConfig") -> float:
    """Part of a GPU's memory that weights and cache of a run may take: vLLM's own, as it is told."""
    return config.gpu_memory if config.engine == "vllm" else USABLE


def check_lengths(methods: "Iterable[Method]", grid: "Grid", shapes: Iterable[TaskShape]) -> None:
    """Refuse methods whose parameters make no sense for the lengths of a run's candidates, before anything runs.

    Raises:
        MethodError: See `Method.check_lengths`.
    """
    lengths = [(int(shape.prompt_tokens), L) for shape in shapes for L in grid.lengths_of(shape.name, shape.lengths)]
    for method in methods:
        for prompt, L in lengths:
            method.check_lengths(prompt, L)


def load_task(config: "ResolvedConfig", name: str) -> "Task":
    """A task with the lengths and the choices of problems that a configuration asks for.

    The base point's L is the model's where the task has it, else the task's, else the shortest.

    Raises:
        TaskError: There is no such task, or it has no such choice.
    """
    from hyperscale import tasks

    task = tasks.load(name).with_parameters(**config.task_params.get(name, {}))
    if task.is_likelihood:  # whose L follows from what is scored
        return task
    lengths = config.lengths or task.lengths
    candidates = (models.find(config.model).base_length, task.base_length, lengths[0])
    # The first that the task has; with --length none may be but the shortest.
    base = next(L for L in candidates if L in lengths)
    return dataclasses.replace(task, lengths=lengths, base_length=base)


def task_shape(task: "Task", prompt_tokens: float, config: "ResolvedConfig", options: float = 0) -> TaskShape:
    """A task with the mean length of its prompts, as the closed form of its costs needs it.

    Args:
        task: The task.
        prompt_tokens: Mean length of its prompts.
        config: The run's configuration.
        options: Mean number of options of a problem, if it is scored by likelihood and that is known.
    """
    lengths = tuple(sorted(task.lengths))
    room = 0 if task.is_likelihood else config.answer_room
    options = (options or _TYPICAL_OPTIONS) if task.is_likelihood else 0
    # Rounded up, so that the base point itself is within a budget that is told in multiples of it.
    return TaskShape(task.name, ceil(prompt_tokens), task.base_length, lengths, room, options)


def local_gpu(device: str) -> "Gpu | None":
    """This machine's GPU: the one of that name, else the first."""
    import torch

    from hyperscale.engines.devices import device_index
    from hyperscale.planning.roofline import identify_gpu

    if not torch.cuda.is_available():
        return None
    index = device_index(device) or 0
    index = index if index < torch.cuda.device_count() else 0
    return identify_gpu(torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory)


def shared_gpu(config: "ResolvedConfig") -> "Gpu | None":
    """This machine's GPU, or as many of its kind as share an engine; None on the CPU. A cluster's are taken for such.

    By it the plan tells the time where nothing was timed yet, and how many chains decode together.
    """
    if not config.device.startswith("cuda"):
        return None
    gpu = local_gpu(config.device)
    return gpu and gpu.times(config.tensor_parallel)
