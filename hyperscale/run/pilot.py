"""The pilot: a few of a run's own chains, generated first to learn what the others will cost.

They wait in a folder of their own, ``pilot/``, which resumes like any run. Once the plan is made, those that it asks
for move into the run: a chain that ended by itself is the same for every L it fits in. Only chains cut off at an L that
the plan then left for another one are generated again.
"""

from math import ceil
from pathlib import Path

from hyperscale import models
from hyperscale.methods.arm import Arm
from hyperscale.planning import measured_costs, plan_file
from hyperscale.planning.prediction import Predictor
from hyperscale.results.samples import Sample
from hyperscale.results.store import Store, opened
from hyperscale.run import prepare
from hyperscale.run.engine_cache import EngineCache
from hyperscale.run.execute import ArmRunner
from hyperscale.run.observer import Observer
from hyperscale.run.prepare import PreparedRun, Problem, request

FOLDER = "pilot"
PROBLEMS = 8  # of each task
SMALLEST = 3 * PROBLEMS  # problems of a task from which on a pilot is a small part of the run


def settle(
    run: PreparedRun, folder: Path | Store, observer: Observer, engines: EngineCache | None = None
) -> PreparedRun:
    """Give a run the plan it is finished with: its folder's, else one made after a pilot where that is worth it.

    Args:
        run: The run, with what was predicted without generating anything.
        folder: Its folder, made if need be, or the store that is open on it; it holds the plan afterwards.
        observer: Told of the pilot.
        engines: Keeps what the pilot loads for the run itself.

    Raises:
        HyperscaleError: The folder cannot be used, the model cannot be run, or no point fits the budget.
    """
    with opened(folder, run.info) as store:
        kept = prepare.kept(run, store.folder)
        if kept is None:
            if len(store):  # begun before plans were kept: by the closed form
                kept = run.replanned(Predictor(run.entry_bytes))
            else:
                kept = _measured(run, store.folder, observer, engines or EngineCache())
            plan_file.save(kept.plan, store.folder)
        _adopt(kept, store)
    return kept


def asked(run: PreparedRun) -> dict[Arm, list[tuple[Problem, int]]]:
    """The chains of the pilot, of each arm: the problem and L; the chain's index is 0.

    L is the one that the plan without a pilot has for that chain, so that it most likely stays; the shortest L, or the
    base length where a speed is sought, if nothing of that arm is planned.
    """
    config, seconds = run.config, run.plan.budget.axis == "seconds"
    forced = config.predict == "pilot" or seconds
    if config.predict in ("closed", "earlier") or (run.plan.budget.unlimited and config.predict != "pilot"):
        return {}
    found: dict[Arm, list[tuple[Problem, int]]] = {}
    for arm in run.methods:
        for shape in run.shapes:
            problems = run.problems[shape.name]
            known = run.predictor.evidence.get((arm, shape.name))
            if known and (known.pace is not None or not seconds):
                continue
            if len(problems) < SMALLEST and not forced:
                continue
            lengths = sorted({length for chain, length in run.plan.chains(arm, shape.name) if chain == 0})
            if not lengths and forced:
                lengths = [shape.base_length if seconds else min(shape.lengths)]
            # Seconds depend on how many chains decode together, so there a pilot fills the batch.
            count = max(PROBLEMS, ceil(config.batch_size / len(run.shapes)) if seconds else 0)
            found.setdefault(arm, []).extend((each, n) for n in lengths for each in _spread(problems, count))
    return {arm: chains for arm, chains in found.items() if chains}


def _spread(problems: list[Problem], count: int) -> list[Problem]:
    """So many problems, evenly spaced, as they may be in order of difficulty."""
    count = min(count, len(problems))
    return [problems[i * len(problems) // count] for i in range(count)]


def _measured(run: PreparedRun, folder: Path, observer: Observer, engines: EngineCache) -> PreparedRun:
    chains = asked(run)
    if not chains:
        if not run.plan.points:
            run = run.replanned(run.predictor)  # says what is missing
        return run
    seed = run.config.seeds[0]
    with Store(folder / FOLDER, run.info()) as store:
        runner = ArmRunner(run, store, observer, engines)
        for arm, wanted in chains.items():
            observer.stage(f"pilot of {arm}: {len(wanted)} chains of the run, to predict its costs")
            requests = [(problem, request(problem, arm, 0, length)) for problem, length in wanted]
            missing = runner.missing(arm, requests, seed)
            first, done = None, len(requests) - len(missing)
            observer.pilot(arm, done, len(requests))
            for pair in runner.generate(arm, missing, seed, before=True) if missing else ():
                first, done = first or pair, done + 1
                observer.pilot(arm, done, len(requests))
            if first and models.find(run.config.model).demonstrate and arm in runner.strongest():
                observer.shown(arm, *first)
        # In an order that no interruption changes, as sums of floats depend on it.
        ordered = sorted((sample.without_texts() for sample in store.samples()), key=lambda sample: sample.key)
        measured = measured_costs.of_samples(ordered, measured_costs.PILOT)
    return run.replanned(Predictor(run.entry_bytes, {**run.predictor.evidence, **measured}))


def _adopt(run: PreparedRun, store: Store) -> None:
    """Move what the plan asks for from the pilot into the run."""
    folder = store.folder
    if not (folder / FOLDER).is_dir():
        return
    planned = {
        (arm, task): [L for chain, L in run.plan.chains(arm, task) if chain == 0]
        for arm in run.methods
        for task in run.problems
    }
    with Store(folder / FOLDER, run.info()) as pilot:
        for sample in pilot.samples():
            for L in planned.get((sample.arm, sample.task), []):
                if _serves(sample, L):
                    store.append(sample.with_maximum(L))


def _serves(sample: Sample, L: int) -> bool:
    """Whether a run with maximum L would have given this very chain."""
    return sample.L == L or (sample.length_invariant and sample.finish == "stop" and sample.tokens <= L)
