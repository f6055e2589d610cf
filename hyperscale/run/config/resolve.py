"""Makes every default of a configuration explicit, and reads its budget and its grid."""

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hyperscale import models
from hyperscale.engines import registry
from hyperscale.engines.devices import device_kind
from hyperscale.engines.provider import EngineSpec
from hyperscale.errors import ConfigError
from hyperscale.methods.arm import Arm
from hyperscale.methods.names import VANILLA
from hyperscale.planning import grid as grids
from hyperscale.planning.budget import Budget
from hyperscale.planning.grid import Grid
from hyperscale.run.config import compatibility, method_params
from hyperscale.run.config.contexts import all_contexts, all_greedy, expand_contexts
from hyperscale.run.config.own_tasks import with_own_tasks
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.datasets import data_by_task

# What decides no chain: two runs that differ in these alone are the same run.
_WITHOUT_EFFECT = {
    "batch_size",
    "names_batch_size",
    "batch_choice",
    "cuda_graphs",
    "gpu_memory",
    "compilation",
    "gpus",
    "tensor_parallel",
    "engines",
    "executor",
    "address",
    "stall_timeout",
    "sandbox",
    "data",
    "vote",
    "sampling_sources",
    "inserted_tokens",
    "names_crs",
    "named_gpu_settings",
    "sampling_notes",
    "engine_choice",
}


GREEDY = "greedy, as for all context tasks"
"""Where the temperature is from if every task is a context task."""

GREEDY_TASKS = "greedy, as the tasks ask for"
"""Where the temperature is from if every task asks for greedy chains, and not all are context tasks."""

SET_FOR_RUN = "set for this run"
"""Where a setting of sampling is from that the user gave."""


class ResolvedConfig(BaseModel):
    """A run with all defaults made explicit; `RunConfig` says what each setting is.

    ``limit`` is None for all problems, ``vote`` for each task's own strategy; ``device`` and ``dtype`` are "auto" until
    `placed` has been told of the machine, ``engine`` may be until `hyperscale.run.config.engine_choice` has chosen,
    which says in ``engine_choice`` what and why. `RunConfig.pin_prompt` is part of ``params`` here, as a parameter of
    each method that has it, and `RunConfig.axis` part of the budget. ``sampling_sources`` says where temperature,
    top_p, top_k, min_p and repetition_penalty are from, each in words for the user. ``inserted_tokens`` is the most
    that is inserted in front of a forced answer, 1 until a tokenizer has told. ``names_crs`` and ``names_batch_size``
    are whether the user gave ``crs`` and ``batch_size``, ``named_gpu_settings`` which of the settings that a single
    engine reads on a GPU, ``sampling_notes`` what the model's own sampling asks for and does not get. ``batch_size`` is
    the user's or the model's until `hyperscale.run.batch_choice` has chosen, which says in ``batch_choice`` how many
    and why, where that depends on the GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    methods: tuple[str, ...]
    budget: Budget
    tasks: tuple[str, ...]
    data: dict[str, str]
    task_params: dict[str, dict[str, Any]]
    params: dict[str, dict[str, Any]]
    lengths: tuple[int, ...]
    crs: tuple[float, ...]
    names_crs: bool = False
    named_gpu_settings: tuple[str, ...] = ()
    grid: Grid
    limit: int | None
    system_prompt: str | None
    template_args: dict[str, Any]
    chat_template: str | None
    seeds: tuple[int, ...]
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    sampling_sources: dict[str, str]
    sampling_notes: tuple[str, ...] = ()
    engine: str
    engine_choice: str = ""
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    kv_dtype: str
    batch_size: int
    names_batch_size: bool = False
    batch_choice: str = ""
    cuda_graphs: bool
    gpu_memory: float
    compilation: Literal["auto", "none", "graphs", "full"] = "auto"
    gpus: int | None = None
    tensor_parallel: int = 1
    engines: int | None = None
    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    stall_timeout: float = 600.0
    sandbox: str
    extend: int
    extend_word: str
    force_answer: int
    vote: str | None
    predict: Literal["auto", "earlier", "pilot", "closed"]

    @property
    def arms(self) -> list[Arm]:
        """The arms in the order they run; whether a method depends on L is not known here."""
        return [arm for method in self.methods for arm in self._arms_of(method)]

    def _arms_of(self, method: str) -> list[Arm]:
        if method == VANILLA:
            return [Arm(method, 1.0)]
        # A method with budgets in tokens runs at these instead of the ratios.
        budgets = self.params.get(method, {}).get(method_params.BUDGET)
        return (
            [Arm(method, 1.0, kv_budget=tokens) for tokens in budgets]
            if budgets
            else [Arm(method, cr) for cr in self.crs]
        )

    @property
    def alike(self) -> frozenset[str]:
        """Methods whose chains of a problem are all the same: greedy ones, unless the method draws its victims."""
        return _find_alike(self.tasks, self.temperature, self.methods)

    @property
    def notes(self) -> list[str]:
        """What is to be said of settings, the user's and the model's, that have no effect."""
        compressing = [arm for arm in self.arms if arm.method != VANILLA]
        if self.names_crs and compressing and all(arm.kv_budget for arm in compressing):
            return [*self.sampling_notes, "--cr has no effect: every method of this run has a budget in tokens"]
        return list(self.sampling_notes)

    def params_of(self, arm: Arm) -> dict[str, Any]:
        """The parameters of an arm's method, without the CR."""
        params = dict(self.params.get(arm.method, {}))
        return params | {method_params.BUDGET: arm.kv_budget} if arm.kv_budget else params

    inserted_tokens: int = 1

    @property
    def answer_room(self) -> int:
        """Tokens that a forced answer adds at most: what is inserted in front of it and K more."""
        return self.force_answer + self.inserted_tokens if self.force_answer else 0

    def placed(self, *, device: Literal["cpu", "cuda"], dtype: Literal["float32", "bfloat16"]) -> "ResolvedConfig":
        """The configuration on a machine: ``auto`` becomes this device and this dtype."""
        update: dict[str, str] = {}
        if self.device == "auto":
            update["device"] = device
        if self.dtype == "auto":
            update["dtype"] = dtype
        return self.model_copy(update=update)

    def compared(self) -> dict[str, Any]:
        """The part of run.json that decides the chains; a folder holds runs that agree in it."""
        values = self.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        values["device"] = device_kind(self.device)  # which of several GPUs decides nothing
        return values | {"budget": self.budget.text, "axis": self.budget.axis, "grid": self.grid.name}


def resolve_config(config: RunConfig) -> ResolvedConfig:
    """Fill in every default that needs no weights.

    Raises:
        ConfigError: The model has no default tasks and none were named, or has no revisions and one was; settings do
            not go together, or parameters belong to no method or task of the run.
        ModelError: The model is unknown, or its own sampling settings cannot be read.
        BudgetError: The grid is unknown, or the budget cannot be read.
    """
    # One name from here on; it is what samples are stored under.
    name = models.add_revision(config.model, config.revision)
    config = config.model_copy(update={"model": name, "revision": None})
    model = models.find(config.model)
    tasks = config.tasks or model.tasks
    if not tasks:
        raise ConfigError(f"{config.model} has no default tasks: name some with --task (see `hyperscale tasks`)")
    config = with_own_tasks(config.model_copy(update={"tasks": tasks}))
    tasks = config.tasks
    config = expand_contexts(config, tasks)
    tasks = config.tasks
    params = method_params.complete_params(config)
    if foreign := sorted(set(config.task_params) - set(tasks)):
        raise ConfigError(f"--task-param {foreign[0]}: {foreign[0]!r} is no task of this run ({', '.join(tasks)})")
    # Cheap checks first: a mistake should show before a tokenizer or a model is loaded.
    compatibility.check_strategy(config)
    compatibility.check_engine(config)
    compatibility.check_placement(config)
    budget, grid = _budget_and_grid(config, model.grid)
    sampling = _sampling(config, model)
    if _find_alike(tasks, sampling["temperature"], config.methods) == set(config.methods):
        grid = grid.model_copy(update={"widths": (1,)})  # nothing is drawn at all: no note or record speaks of widths
    # These are completed or read; every other setting stays as it was given.
    defaults: dict[str, Any] = {
        "budget": budget,
        "tasks": tasks,
        "data": data_by_task(config.data, tasks),
        "params": params,
        "lengths": tuple(sorted(config.lengths)),
        "names_crs": bool(config.crs),
        "crs": config.crs or _retrofitted_crs(model, config.methods) or grid.crs,
        "grid": grid,
        "batch_size": config.batch_size or model.batch_size,
        "names_batch_size": config.batch_size is not None,
        "cuda_graphs": config.cuda_graphs is not False,
        "gpu_memory": EngineSpec.gpu_memory if config.gpu_memory is None else config.gpu_memory,
        "named_gpu_settings": tuple(
            name for name in registry.gpu_settings() if getattr(config, name) not in (None, registry.AUTO)
        ),
        **sampling,
    }
    names = (RunConfig.model_fields.keys() & ResolvedConfig.model_fields.keys()) - defaults.keys()
    same = {name: getattr(config, name) for name in names}
    return ResolvedConfig(**same, **defaults)


def _find_alike(tasks: tuple[str, ...], temperature: float, methods: tuple[str, ...]) -> frozenset[str]:
    """See `ResolvedConfig.alike`."""
    is_greedy = all_greedy(tasks) and not temperature
    return frozenset(methods) - {"random"} if is_greedy else frozenset()


def _sampling(config: RunConfig, model: models.Model) -> dict[str, Any]:
    """What shapes the draws: as the user set it, else as the model has it; and where each value is from."""
    default = models.find_default_sampling(model)
    if all_greedy(config.tasks):
        # What is asked about a text has one right answer, and RULER's own settings are greedy.
        values, sources = (
            {**default.values, "temperature": 0.0},
            {**default.sources, "temperature": GREEDY if all_contexts(config.tasks) else GREEDY_TASKS},
        )
        default = replace(default, values=values, sources=sources)
    given = {name: value for name in default.values if (value := getattr(config, name)) is not None}
    sources = {name: SET_FOR_RUN if name in given else source for name, source in default.sources.items()}
    return {**default.values, **given, "sampling_sources": sources, "sampling_notes": tuple(default.notes)}


def _budget_and_grid(config: RunConfig, default_grid: str) -> tuple[Budget, Grid]:
    """The budget, and the grid of candidates; a budget that is a grid's name stands for that grid's budget."""
    if config.budget in grids.names():
        budget_grid = Grid.load(config.budget)
        budget = Budget.parse(budget_grid.budget, config.axis)
        grid = Grid.load(config.grid) if config.grid else budget_grid
    else:
        grid = Grid.load(config.grid or default_grid)
        budget = Budget.parse(config.budget, config.axis)
    # Lengths that the user named are candidates whatever the grid has.
    return budget, grid.model_copy(update={"lengths": None}) if config.lengths else grid


def _retrofitted_crs(model: models.Model, methods: tuple[str, ...]) -> tuple[float, ...]:
    """Ratios at which the model has retrofits of every requested kind; those of DMS if none is requested."""
    offers = [tuple(model.retrofits[name]) for name in methods if name in model.retrofits] or [tuple(model.dms)]
    return tuple(cr for cr in offers[0] if all(cr in offer for offer in offers))
