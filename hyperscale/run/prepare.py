"""From a configuration to a run that is ready to start: methods, checkpoints, problems and the plan; no weights yet."""

import dataclasses
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hyperscale
from hyperscale import models
from hyperscale.engines import registry
from hyperscale.errors import EngineError
from hyperscale.kv.formats import AUTO
from hyperscale.models.registry import shape_of
from hyperscale.planning import measured_costs
from hyperscale.planning.arms import Arm
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import TaskShape
from hyperscale.planning.grid import Grid
from hyperscale.planning.plan_file import FILE, load
from hyperscale.planning.planner import Plan, make_plan
from hyperscale.planning.prediction import Predictor
from hyperscale.run import identity, verification
from hyperscale.run.config import resolve
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.task import fingerprint
from hyperscale.utils.hub import load_tokenizer

if TYPE_CHECKING:
    from hyperscale.engines.base import Request
    from hyperscale.methods.core.base import Method
    from hyperscale.tasks.task import Doc, Task


@dataclass(frozen=True)
class Problem:
    """A problem of a task, with its prompt as the model sees it."""

    task: "Task"
    doc: "Doc"
    prompt_ids: tuple[int, ...]

    @property
    def id(self) -> str:
        """Unique over tasks."""
        return f"{self.task.name}/{self.doc.id}"


@dataclass(frozen=True)
class PreparedRun:
    """A run whose plan is made: all that needs no model in memory.

    Attributes:
        config: The resolved configuration.
        plan: The points and, from them, the chains; without points if a pilot has to measure first (`pilot.settle`).
        methods: Each arm's method.
        checkpoints: Each arm's weights.
        problems: The problems, task by task.
        shapes: The tasks as the planner sees them.
        predictor: Knows what chains cost.
        base_bytes: Bytes of one (key, value) pair, summed over layers and KV heads, of a cache in the model's type: a
            budget in base points counts these, so that it means the same whatever the cache is kept in.
    """

    config: RunConfig
    plan: Plan
    methods: "dict[Arm, Method]"
    checkpoints: dict[Arm, models.Checkpoint]
    problems: dict[str, list[Problem]]
    shapes: list[TaskShape]
    predictor: Predictor
    base_bytes: int

    @property
    def kv_dtype(self) -> str:
        """What the cache keeps keys and values in."""
        return self.config.dtype if self.config.kv_dtype == AUTO else self.config.kv_dtype

    @property
    def entry_bytes(self) -> int:
        """Bytes of one (key, value) pair summed over layers and KV heads."""
        return self.predictor.entry_bytes

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems of each task."""
        return {name: len(items) for name, items in self.problems.items()}

    @property
    def estimated(self) -> frozenset[str]:
        """Tasks whose prompts were not measured: none."""
        return frozenset()

    @property
    def longest(self) -> int:
        """Most tokens that a sequence of the run can have, with its prompt, whichever lengths the plan chooses."""
        most = {shape.name: max(shape.lengths) for shape in self.shapes}
        return max(len(item.prompt_ids) + most[name] for name, items in self.problems.items() for item in items)

    def info(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            SandboxError: A task's answers are programs, and there is no sandbox for them here.
        """
        versions = {"hyperscale": hyperscale.__version__, "python": platform.python_version()}
        for provider in registry.assign(self.config.engine, self.config.methods):
            versions |= provider.versions()
        return {
            **identity.of(
                self.config, [items[0].task for items in self.problems.values()], self.methods, self.checkpoints
            ),
            "data": self.config.data,
            "documents": {name: fingerprint([item.doc for item in items]) for name, items in self.problems.items()},
            "seeds": list(self.config.seeds),
            "versions": versions,
            "sandbox": self._sandbox(),
        }

    def compression(self, samples: Sequence[dict[str, Any]]) -> list[verification.Compression]:
        """The realised compression of each arm, of all the run's chains."""
        return verification.summary(self.methods, samples, answer_room(self.config))

    def replanned(self, predictor: Predictor) -> "PreparedRun":
        """The run with the plan that other predictions make.

        Raises:
            BudgetError: No point fits by these.
        """
        budget = Budget.parse(self.config.budget, self.config.axis)
        arms = list(self.methods)
        plan = make_plan(budget, make_grid(self.config), self.shapes, arms, self.base_bytes, predictor)
        return dataclasses.replace(self, plan=plan, predictor=predictor)

    def _sandbox(self) -> str | None:
        """The level at which the model's programs run in this process; None if no task asks for programs."""
        from hyperscale.scoring import graders
        from hyperscale.scoring.sandbox import pool

        names = {items[0].task.grader for items in self.problems.values()}
        return pool.choose_shared_level(graders.running_programs(names), self.config.sandbox)

    def requests(self, arm: Arm) -> "list[tuple[Problem, Request]]":
        """Every chain of an arm, those with the largest L first, so that none of them is left alone at the end.

        Within one L tasks take turns, and the chains of a problem follow each other: they share its prefill.
        """
        chains = {name: self.plan.chains(arm, name) for name in self.problems}
        found = []
        for row in zip_longest(*self.problems.values()):
            for problem in filter(None, row):
                for chain, length in chains[problem.task.name]:
                    found.append((problem, request(problem, arm, chain, length)))
        return sorted(found, key=lambda pair: -pair[1].max_new_tokens)


def request(problem: Problem, arm: Arm, chain: int, length: int) -> "Request":
    """A chain of at most ``length`` tokens, with the costs of every shorter L that it may be cut to."""
    from hyperscale.engines.base import Request

    shorter = tuple(n for n in problem.task.lengths if n < length) if arm.length_invariant else ()
    return Request(problem.id, chain, problem.prompt_ids, length, (*shorter, length))


def prepare(config: RunConfig, stage: Callable[[str], None], folder: Path | None = None) -> PreparedRun:
    """Resolve a configuration and plan it; loads a tokenizer and problems, no weights.

    Args:
        config: As the user asked for it.
        stage: Told of each step that takes a moment.
        folder: Where the run will be stored; finished runs beside it tell what chains cost. If it has a plan, that is
            the run's, and none is made here.

    Raises:
        HyperscaleError: Anything named does not exist, does not fit together, or no point fits the budget.
    """
    config = resolve.resolve(config)
    wanted = [(name, cr) for name in config.methods for cr in config.crs_of(name)]
    stage("reading tasks")
    loaded = [load_task(config, name) for name in config.tasks]
    found = {pair: models.resolve(config.model, *pair) for pair in wanted}
    from hyperscale import methods  # the first to import torch, so that other mistakes are reported at once

    created = {(name, cr): methods.create(name, cr=cr, **config.params.get(name, {})) for name, cr in wanted}
    arms = {Arm(name, cr, method.length_invariant): method for (name, cr), method in created.items()}
    checkpoints = {arm: found[arm.method, arm.CR] for arm in arms}
    for path in dict.fromkeys(checkpoint.path for checkpoint in found.values()):
        models.require(path, config.model)
    docs = [task.docs(config.limit, config.data.get(task.name)) for task in loaded]
    config = _placed(config)
    # Before the first arm has run for hours, not when its turn comes.
    for provider, names in registry.assign(config.engine, config.methods).items():
        provider.check_methods([method for (name, _), method in created.items() if name in names], config.device)
    stage(f"reading the tokenizer of {config.model}")
    first = next(iter(checkpoints.values())).path  # a model's checkpoints share tokenizer and shapes
    tokenizer = load_tokenizer(first)
    problems = {
        task.name: [Problem(task, doc, task.prompt_ids(doc, tokenizer)) for doc in task_docs]
        for task, task_docs in zip(loaded, docs, strict=True)
    }
    shapes = [_shape(task, problems[task.name], config) for task in loaded]
    known: dict[measured_costs.Key, measured_costs.Evidence] = {}
    planned = folder is not None and (folder / FILE).exists()
    if folder is not None and not planned and config.predict in ("auto", "earlier"):
        known = measured_costs.earlier(folder.parent, folder, identity.of(config, loaded, arms, checkpoints))
    shape = shape_of(config.model, first)
    predictor = Predictor(shape.entry_bytes(config.dtype, config.kv_dtype), known)
    budget = Budget.parse(config.budget, config.axis)
    run = PreparedRun(
        config, Plan(budget, {}, ()), arms, checkpoints, problems, shapes, predictor, shape.entry_bytes(config.dtype)
    )
    # A pilot may find that more fits, or at all what a second is; without one the plan is made now.
    later = config.predict == "pilot" or (config.predict == "auto" and budget.axis == "seconds")
    return run if later or planned else run.replanned(predictor)


def load_task(config: RunConfig, name: str) -> "Task":
    """A task with the lengths and the choices of problems that a resolved configuration asks for.

    The base point's L is the model's where the task has it, else the task's, else the shortest.

    Raises:
        TaskError: There is no such task, or it has no such choice.
    """
    from hyperscale import tasks

    task = tasks.load(name).with_parameters(**config.task_params.get(name, {}))
    lengths = config.lengths or task.lengths
    wanted = (models.find(config.model).base_length, task.base_length, lengths[0])
    base = next(length for length in wanted if length in lengths)
    return dataclasses.replace(task, lengths=lengths, base_length=base)


def _placed(config: RunConfig) -> RunConfig:
    """Settle ``auto`` for device and dtype."""
    import torch

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise EngineError("--device cuda: torch sees no CUDA device here; leave --device out to run on the CPU")
    dtype = config.dtype if config.dtype != "auto" else ("bfloat16" if device == "cuda" else "float32")
    return config.model_copy(update={"device": device, "dtype": dtype})


def make_grid(config: RunConfig) -> Grid:
    """The grid of a resolved configuration; lengths that the user named are not narrowed by it."""
    grid = Grid.load(config.grid or "")
    return grid.model_copy(update={"lengths": None}) if config.lengths else grid


def _shape(task: "Task", problems: Sequence[Problem], config: RunConfig) -> TaskShape:
    mean = round(sum(len(problem.prompt_ids) for problem in problems) / max(len(problems), 1))
    return TaskShape(task.name, mean, task.base_length, tuple(sorted(task.lengths)), answer_room(config))


def answer_room(config: RunConfig) -> int:
    """Tokens that a forced answer adds at most: the end of thinking and K more."""
    return config.force_answer + 1 if config.force_answer else 0


def kept(run: PreparedRun, folder: Path) -> PreparedRun | None:
    """A run with the plan of its folder, which was found to have the same configuration; None if it has none yet.

    Raises:
        ResultsError: The file is unreadable or of another version.
    """
    plan = load(folder, run.plan.budget, run.methods)
    return None if plan is None else dataclasses.replace(run, plan=plan)
