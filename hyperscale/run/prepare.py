"""Prepares a run: from a configuration to its methods, checkpoints, problems and plan; no weights are loaded yet."""

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hyperscale
from hyperscale import models
from hyperscale.engines import registry
from hyperscale.engines.config_check import rope_notes
from hyperscale.engines.devices import check_device
from hyperscale.errors import ConfigError, ModelError
from hyperscale.kv.formats import AUTO
from hyperscale.methods.arm import Arm
from hyperscale.models.checkpoint import shape_of
from hyperscale.models.gate_files import gate_notes
from hyperscale.planning import measured_costs, plan_file
from hyperscale.planning.plan_file import PLAN_FILE
from hyperscale.planning.planner import Plan
from hyperscale.planning.prediction import Predictor
from hyperscale.planning.roofline import Roofline
from hyperscale.results.manifest import read_date
from hyperscale.run import identity, verification
from hyperscale.run.batch_choice import with_batch_size
from hyperscale.run.config import resolve
from hyperscale.run.config.engine_choice import with_engine
from hyperscale.run.config.resolve import ResolvedConfig
from hyperscale.run.config.schema import RunConfig
from hyperscale.run.context import fit_lengths, smallest_context
from hyperscale.run.placement import place_engines
from hyperscale.run.planned_run import (
    PlannedRun,
    PlannedTask,
    check_lengths,
    entry_bytes_by_method,
    load_task,
    shared_gpu,
    task_shape,
    usable_memory,
)
from hyperscale.run.prompting import (
    check_prompts,
    check_tokenizers,
    cue_of,
    encode_options,
    likelihood_notes,
    make_prompt,
    make_prompt_format,
    prompt_notes,
    scored_length,
    with_insertions,
)
from hyperscale.tasks.own import groups, sources
from hyperscale.tasks.own_lm_eval import LmEvalProblems
from hyperscale.tasks.task import fingerprint, prompt_hash
from hyperscale.utils.hub import load_tokenizer, pin_revision

if TYPE_CHECKING:
    from hyperscale.engines.base import Request
    from hyperscale.methods.core.base import Method
    from hyperscale.models.prompts import Prompt, PromptFormat
    from hyperscale.results.samples import Sample
    from hyperscale.run.prompting import ScoredIds
    from hyperscale.tasks.task import Doc, Task


@dataclass(frozen=True)
class Problem:
    """A problem of a task, with its prompt as the model sees it; of one of likelihood also its options."""

    task: "Task"
    doc: "Doc"
    prompt: "Prompt"
    scored: "tuple[ScoredIds, ...]" = ()

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Token ids of its prompt."""
        return self.prompt.ids

    @property
    def request_id(self) -> str:
        """Its name in requests: unique over tasks, and a part of the sampling noise's key, so it must never change."""
        return f"{self.task.name}/{self.doc.id}"


@dataclass(frozen=True)
class PreparedRun(PlannedRun):
    """A planned run that is ready to start: it has all that needs no model in memory.

    Attributes:
        methods: Each arm's method.
        checkpoints: Each arm's weights.
        problems: The problems, task by task.
        prompt_format: How their prompts were made.
        date: What their prompts take for the present; a folder keeps it, so that a resumed run asks the same.
    """

    methods: "dict[Arm, Method]"
    checkpoints: dict[Arm, models.Checkpoint]
    problems: dict[str, list[Problem]]
    prompt_format: "PromptFormat"
    date: datetime

    @property
    def notes(self) -> list[str]:
        """What is to be said about the run before it starts."""
        from hyperscale import methods

        lengths = [task.note for task in self.tasks if task.note]
        return [
            *lengths,
            *self.config.notes,
            *likelihood_notes(self.config),
            *prompt_notes(self.prompt_format, self.config),
            *_rounding_notes(self.config),
            *methods.notes(self.methods.values()),
            *gate_notes(checkpoint.path for checkpoint in self.checkpoints.values()),
            *rope_notes(checkpoint.path for checkpoint in self.checkpoints.values()),
        ]

    @property
    def kv_dtype(self) -> str:
        """What the cache keeps keys and values in."""
        return self.config.dtype if self.config.kv_dtype == AUTO else self.config.kv_dtype

    @property
    def max_sequence_tokens(self) -> int:
        """Most tokens that a sequence of the run can have, with its prompt, whichever lengths the plan chooses.

        Those of a forced answer are among them.
        """
        max_lengths = {shape.name: max(shape.lengths) + self.config.answer_room for shape in self.shapes}

        def longest(name: str, item: Problem) -> int:
            scored = [len(context) + len(ids) for context, ids in item.scored]
            return max(scored, default=len(item.prompt_ids) + max_lengths[name])

        return max(longest(name, item) for name, items in self.problems.items() for item in items)

    def info(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            SandboxError: A task's answers are programs, and there is no sandbox for them here.
        """
        versions = {"hyperscale": hyperscale.__version__, "python": platform.python_version()}
        for provider in registry.assign(self.config.engine, self.config.methods):
            versions |= provider.versions()
        paths = {checkpoint.path for checkpoint in self.checkpoints.values()}  # arms may share one
        identities = {path: models.identify_weights(path) for path in paths}
        return {
            **identity.identify_run(
                self.config, [items[0].task for items in self.problems.values()], self.methods, self.checkpoints
            ),
            "weights": {str(arm): identities[checkpoint.path] for arm, checkpoint in self.checkpoints.items()},
            "data": self.config.data,
            **({"task_files": files} if (files := sources.describe(self.config.tasks)) else {}),
            **({"task_groups": found} if (found := self._groups()) else {}),
            "documents": {name: fingerprint([item.doc for item in items]) for name, items in self.problems.items()},
            "prompts": {
                name: prompt_hash("\0".join(item.prompt.text for item in items))
                for name, items in self.problems.items()
            },
            "prompt_format": self.prompts,
            "date": self.date.isoformat(),
            "seeds": list(self.config.seeds),
            "sampling_sources": self.config.sampling_sources,
            "versions": versions,
            "widths": list(self.config.grid.widths),  # points are made at these, whatever becomes of the grid
            "sandbox": self._sandbox(),
        }

    def compression(self, samples: "Iterable[Sample]") -> list[verification.Compression]:
        """The realised compression of each arm, of all the run's chains."""
        return verification.summarize_compression(self.methods, samples, self.config.answer_room)

    def _groups(self) -> dict[str, dict[str, Any]]:
        """The groups that the run's tasks were named by, and how their means weigh them."""
        origins = {name: items[0].task.origin for name, items in self.problems.items()}
        return groups.find_groups(
            {name: origin.metric_name for name, origin in origins.items() if isinstance(origin, LmEvalProblems)}
        )

    def _sandbox(self) -> str | None:
        """The level at which the model's programs run in this process; None if no task asks for programs."""
        from hyperscale.scoring import graders
        from hyperscale.scoring.sandbox import pool

        names = {items[0].task.grader for items in self.problems.values()}
        return pool.choose_shared_level(
            graders.select_program_graders(names), self.config.sandbox, models.is_built_in(self.config.model)
        )

    def requests(self, arm: Arm) -> "list[tuple[Problem, Request]]":
        """Every chain of an arm, those with the largest L first, so that none of them is left alone at the end.

        Within one L tasks take turns, and the chains of a problem follow each other: they share its prefill.
        """
        chains = {name: self.plan.chains(arm, name) for name in self.problems}
        # The first problem of every task, then the second of every task, and so on.
        requests = []
        for row in zip_longest(*self.problems.values()):
            for problem in filter(None, row):
                for chain, L in chains[problem.task.name]:
                    requests.append((problem, make_request(problem, arm, chain, L)))
        return sorted(requests, key=lambda pair: -pair[1].L)


def make_request(problem: Problem, arm: Arm, chain: int, L: int) -> "Request":
    """A chain of at most L tokens, with the costs of every shorter L that it may be cut to."""
    from hyperscale.engines.base import Request

    shorter = tuple(cut for cut in problem.task.lengths if cut < L) if arm.length_invariant else ()
    return Request(
        problem.request_id,
        chain,
        problem.prompt_ids,
        L,
        (*shorter, L),
        opened=problem.prompt.opened,
        cue=cue_of(problem.task),
    )


def prepare_run(
    settings: RunConfig, stage: Callable[[str], None], folder: Path | None = None, plan: Path | None = None
) -> PreparedRun:
    """Resolve a configuration and plan it; loads a tokenizer and problems, no weights.

    Args:
        settings: As the user asked for them.
        stage: Called with a line of text before each step that takes a moment.
        folder: Where the run will be stored; finished runs beside it show what chains cost. If it has a plan, that is
            the run's, and none is made here.
        plan: A plan.json to repeat, or the folder of its run; a folder that has another plan is refused.

    Raises:
        HyperscaleError: Anything named does not exist, does not fit together, or no point fits the budget.
    """
    config = resolve.resolve_config(settings)
    stage("reading tasks")
    tasks = [load_task(config, name) for name in config.tasks]
    for task in tasks:
        task.new_grader().prepare()
    checkpoint_of_arm = {arm: models.resolve(config.model, arm.method, arm.CR) for arm in config.arms}
    from hyperscale import methods  # the first to import torch, so that other mistakes are reported at once
    from hyperscale.engines.loading import check_checkpoint

    made = {arm: methods.create(arm.method, cr=arm.CR, **config.params_of(arm)) for arm in config.arms}
    method_of_arm = {replace(arm, length_invariant=method.length_invariant): method for arm, method in made.items()}
    checkpoints = {arm: checkpoint_of_arm[arm] for arm in method_of_arm}
    for path in dict.fromkeys(checkpoint.path for checkpoint in checkpoints.values()):
        models.require(path, config.model)
        pin_revision(path)  # later arms load what the first one loads
        check_checkpoint(path)
    # Problems are loaded before the device is touched, and tokenised once the tokenizer is there; only those of context
    # tasks are made by it.
    docs = {
        task.name: task.docs(config.limit, config.data.get(task.name))
        for task in tasks
        if task.context is None and not task.is_rendered
    }
    paths = [checkpoint.path for checkpoint in checkpoints.values()]
    config = with_engine(_place(config), method_of_arm, paths, folder)
    stage(f"reading the tokenizer of {config.model}")
    first = next(iter(checkpoints.values())).path  # a model's checkpoints share tokenizer, which is checked, and shapes
    tokenizer = load_tokenizer(first)
    date = (folder and read_date(folder)) or datetime.now().replace(microsecond=0)
    prompt_format = make_prompt_format(config, tokenizer, date)
    context = smallest_context(checkpoint.path for checkpoint in checkpoints.values())
    if long := [task for task in tasks if task.context is not None]:
        for task in long:  # filling takes a while, and their length is known before
            fit_lengths(task, task.context or 0, context, config)
        stage(f"filling the prompts of {', '.join(task.name for task in long)}")
    for task in [task for task in tasks if task.context is not None or task.is_rendered]:
        docs[task.name] = task.docs(config.limit, config.data.get(task.name), prompt_format)
    for task_docs in docs.values():
        check_prompts(task_docs, prompt_format)
    all_prompts = [[make_prompt(doc, prompt_format) for doc in docs[task.name]] for task in tasks]
    others = list(dict.fromkeys(paths))[1:]
    check_tokenizers(others, tokenizer, [prompts[0].text for prompts in all_prompts if prompts])
    openings = [
        (task, opened)
        for task, prompts in zip(tasks, all_prompts, strict=True)
        for opened in {prompt.opened for prompt in prompts}
    ]
    config = with_insertions(config, tokenizer, prompt_format, openings)
    problems, notes = {}, {}
    for task, prompts in zip(tasks, all_prompts, strict=True):
        if task.is_likelihood:
            scored, notes[task.name] = encode_options(docs[task.name], prompt_format, context)
            _check_vocabulary([ids for pairs in scored for pair in pairs for ids in pair], first)
            L = scored_length(sum(len(ids) for _, ids in pairs) for pairs in scored)
            fitted = replace(task, lengths=(L,), base_length=L)
            problems[task.name] = [
                Problem(fitted, *parts) for parts in zip(docs[task.name], prompts, scored, strict=True)
            ]
            continue
        longest = max((len(prompt.ids) for prompt in prompts), default=0)
        fitted, notes[task.name] = fit_lengths(task, longest, context, config)
        _check_vocabulary([prompt.ids for prompt in prompts], first)
        problems[task.name] = [
            Problem(fitted, doc, prompt) for doc, prompt in zip(docs[task.name], prompts, strict=True)
        ]
    has_plan = folder is not None and (folder / PLAN_FILE).exists()
    # A folder that has a plan keeps it, so nothing needs to be predicted there.
    measured: dict[measured_costs.Key, measured_costs.MeasuredCosts] = {}
    if folder is not None and not has_plan and plan is None and config.predict in ("auto", "earlier"):
        own = identity.identify_run(config, tasks, method_of_arm, checkpoints)
        measured = measured_costs.of_earlier_runs(folder.parent, folder, own)
    shape = shape_of(config.model, first)
    entry_bytes = entry_bytes_by_method(config, shape)
    predictor = Predictor(max(entry_bytes.values()), measured, bytes_of_method=entry_bytes)
    planned_tasks = tuple(_planned_task(task, problems[task.name], config, notes[task.name]) for task in tasks)
    check_lengths(method_of_arm.values(), config.grid, [task.shape for task in planned_tasks])
    placement = place_engines(config)
    gpu = shared_gpu(config)
    config = with_batch_size(config, gpu, shape, planned_tasks, tuple(method_of_arm), predictor, placement.engines)
    run = PreparedRun(
        config=config,
        plan=Plan(config.budget, {}, ()),
        arms=tuple(method_of_arm),
        tasks=planned_tasks,
        predictor=predictor,
        base_bytes=shape.entry_bytes(config.dtype),
        prompts=prompt_format.kind,
        roofline=Roofline.of(
            gpu, shape, config.dtype, config.kv_dtype, max(entry_bytes.values()), usable_memory(config)
        ),
        placement=placement,
        methods=method_of_arm,
        checkpoints=checkpoints,
        problems=problems,
        prompt_format=prompt_format,
        date=date,
    )
    if plan is not None:
        repeated, runs = plan_file.repeat(plan, config.budget, run.arms, run.shapes, run.base_bytes)
        kept = plan_file.load(folder, config.budget, run.arms) if folder is not None else None
        if kept is not None and kept.points != repeated.points:
            raise ConfigError(f"{folder} was started with another plan than {plan}: choose another folder with --out")
        return replace(run, plan=repeated, repeated=tuple(runs))
    # A pilot may find that more fits, and only it knows what a second is; without one the plan is made now.
    pilot = config.predict == "pilot" or (config.predict == "auto" and config.budget.axis == "seconds")
    return run if pilot or has_plan else run.replanned(predictor)


def _check_vocabulary(prompts: Sequence[Sequence[int]], path: str) -> None:
    """Refuse prompts with tokens that the model has no embedding for.

    Raises:
        ModelError: There are some.
    """
    rows = models.read_checkpoint_config(path).get("vocab_size")
    highest = max((max(prompt, default=0) for prompt in prompts), default=0)
    if isinstance(rows, int) and highest >= rows:
        raise ModelError(
            f"the tokenizer of {path} writes token {highest}, and config.json gives the model {rows:,} (vocab_size): "
            "the tokenizer is another model's, or the embedding was not enlarged"
        )


def _planned_task(task: "Task", problems: Sequence[Problem], config: ResolvedConfig, note: str | None) -> PlannedTask:
    """A task with the lengths that fit and the mean length of the prompts that run."""
    task = problems[0].task if problems else task
    tokens = sum(len(problem.prompt_ids) for problem in problems) / max(len(problems), 1)
    options = sum(len(problem.scored) for problem in problems) / max(len(problems), 1)
    return PlannedTask(task_shape(task, tokens, config, options), len(problems), note=note)


def _rounding_notes(config: ResolvedConfig) -> list[str]:
    """What a run's type does to the promise that batches change no chain."""
    if (config.device, config.dtype) != ("cpu", "bfloat16"):
        return []
    return [
        "bfloat16 on the CPU: a chain may depend on --batch-size, as sums round differently; in float32 and float16 it "
        "does not"
    ]


def _place(config: ResolvedConfig) -> ResolvedConfig:
    """The configuration with this machine's device and its dtype.

    Raises:
        ModelError: The device is not there.
    """
    import torch

    cuda = torch.cuda.is_available()
    if config.device != "auto":
        check_device(config.device)
    device: Literal["cpu", "cuda"] = "cuda" if cuda and config.device != "cpu" else "cpu"
    return config.placed(device=device, dtype="bfloat16" if device == "cuda" else "float32")
