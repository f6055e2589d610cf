"""Makes a run's plan final: the folder's, else one from a pilot's measured costs.

A pilot is run where one is worth it: a few of the run's own chains show what the others cost. Else the plan stays as
predicted.

The pilot's chains are stored in a folder of their own, ``pilot/``, which resumes like any run. Once the plan is made,
those that it asks for are copied into the run: a chain that ended by itself is the same for every L it fits in. Only
chains that were cut off at one L, and that the plan then wants at another, are generated again.
"""

import dataclasses
from math import ceil
from pathlib import Path
from typing import NamedTuple

from hyperscale import models
from hyperscale.errors import BudgetError
from hyperscale.methods.arm import Arm
from hyperscale.planning import measured_costs, plan_file
from hyperscale.planning.planner import Plan
from hyperscale.results.samples import Sample
from hyperscale.results.store import Store
from hyperscale.run.chain_runner import ChainRunner
from hyperscale.run.engines.cache import EngineCache
from hyperscale.run.observer import RunObserver
from hyperscale.run.prepare import PreparedRun, Problem, make_request

FOLDER = "pilot"
PROBLEMS = 8  # of each task
MIN_PROBLEMS = 3 * PROBLEMS  # problems of a task from which on a pilot is a small part of the run


def finalize_plan(run: PreparedRun, store: Store, observer: RunObserver, engines: EngineCache) -> PreparedRun:
    """A run with the plan that its folder is finished with, which the folder holds afterwards.

    That is the plan which the folder has; else one made after a pilot where that is worth it; else the run's own.

    Args:
        run: The run, with what was predicted without generating anything.
        store: Its folder, opened.
        observer: Called as the pilot goes on.
        engines: Keeps what the pilot loads for the run itself.

    Raises:
        HyperscaleError: The folder cannot be written, the model cannot be run, or no point fits the budget.
    """
    path = store.folder / plan_file.PLAN_FILE
    if path.exists():
        plan, earlier = plan_file.load_file(path, run.plan.budget, run.arms)
        run = dataclasses.replace(run, plan=plan, repeated=tuple(earlier))
    else:
        if run.repeated is not None:
            pass  # the plan of another run, as it is
        elif len(store):  # begun by a version that saved no plan and predicted in closed form
            run = run.replanned(dataclasses.replace(run.predictor, measured={}))
        else:
            run = _run_pilot(run, store.folder, observer, engines)
        plan_file.save(run.plan, store.folder, run.earlier_runs, run.config.engine_choice, run.chains_by_arm)
    # At every start: a kill may have come between the plan and the last of the pilot's chains.
    _adopt_chains(run, store)
    return run


class PilotChain(NamedTuple):
    """A chain of a pilot: the problem, the chain's index and L."""

    problem: Problem
    chain: int
    L: int


def pilot_chains(run: PreparedRun) -> dict[Arm, list[PilotChain]]:
    """The chains of the pilot, of each arm.

    L is the one that the plan without a pilot has for the first chain, so that it most likely stays; the shortest L, or
    the base length where a speed is sought, if nothing of that arm is planned.
    """
    config, in_seconds = run.config, run.plan.budget.axis == "seconds"
    always = config.predict == "pilot" or in_seconds
    if config.predict in ("closed", "earlier") or (run.plan.budget.unlimited and config.predict != "pilot"):
        return {}
    plan = run.plan if run.plan.points else _closed_plan(run)
    chains: dict[Arm, list[PilotChain]] = {}
    for arm in run.arms:
        for shape in run.shapes:
            problems = run.problems[shape.name]
            measured = run.predictor.measured.get((arm, shape.name))
            # Chains that were timed on another machine say nothing about seconds.
            if measured and (measured.pace is not None or not in_seconds):
                continue
            # Of a small run a pilot would be a large part.
            if len(problems) < MIN_PROBLEMS and not always:
                continue
            lengths = sorted({L for chain, L in plan.chains(arm, shape.name) if chain == 0})
            if not lengths and always:
                lengths = [shape.base_length if in_seconds else min(shape.lengths)]
            # Seconds depend on how many chains decode together, so there a pilot fills the batch.
            count = max(PROBLEMS, ceil(config.batch_size / len(run.shapes)) if in_seconds else 0)
            # Of fewer problems than that it takes more chains each: as many as the run may have anyway.
            votes = in_seconds and not shape.options and arm.method not in config.alike
            spread = _spread(problems, count, max(config.grid.widths) if votes else 1)
            chains.setdefault(arm, []).extend(PilotChain(*pair, L) for L in lengths for pair in spread)
    return {arm: found for arm, found in chains.items() if found}


def _closed_plan(run: PreparedRun) -> Plan:
    """The plan that a run would have without its pilot; without points where there is none."""
    try:
        return run.replanned(run.predictor).plan
    except BudgetError:
        return run.plan


def _spread(problems: list[Problem], count: int, width: int) -> list[tuple[Problem, int]]:
    """So many chains of problems evenly spaced, as they may be in order of difficulty: at most ``width`` of each."""
    each = min(ceil(count / max(len(problems), 1)), width)
    count = min(ceil(count / each), len(problems))
    return [(problems[i * len(problems) // count], chain) for i in range(count) for chain in range(each)]


def _run_pilot(run: PreparedRun, folder: Path, observer: RunObserver, engines: EngineCache) -> PreparedRun:
    """The run with the plan that its pilot's costs make; with its own plan if there is nothing to measure."""
    chains = pilot_chains(run)
    if not chains:
        if not run.plan.points:
            run = run.replanned(run.predictor)  # says what is missing
        return run
    seed = run.config.seeds[0]
    with Store(folder / FOLDER, run.info()) as store:
        runner = ChainRunner(run, store, observer, engines)
        for arm in engines.order(run):
            of_arm = chains.get(arm, [])
            if not of_arm:
                continue
            observer.on_stage(f"pilot of {arm}: {len(of_arm)} chains of the run, to predict its costs")
            requests = [(problem, make_request(problem, arm, chain, L)) for problem, chain, L in of_arm]
            missing = runner.missing(arm, requests, seed)
            first, n_stored = None, len(requests) - len(missing)
            observer.on_pilot(arm, n_stored, len(requests))
            for pair in runner.generate(arm, missing, seed, watched=True) if missing else ():
                first, n_stored = first or pair, n_stored + 1
                observer.on_pilot(arm, n_stored, len(requests))
            if first and models.find(run.config.model).demonstrate and arm in runner.arms_to_show():
                observer.on_demonstration(arm, *first)
        # In an order that no interruption changes, as sums of floats depend on it.
        samples = sorted((sample.without_texts() for sample in store.samples()), key=lambda sample: sample.key)
        evidence = measured_costs.of_samples(samples, measured_costs.PILOT)
    predictor = dataclasses.replace(run.predictor, measured={**run.predictor.measured, **evidence})
    return run.replanned(predictor)


def _adopt_chains(run: PreparedRun, store: Store) -> None:
    """Copy the chains that the plan asks for from the pilot's folder into the run."""
    folder = store.folder
    if not (folder / FOLDER).is_dir():
        return
    planned = {(arm, task): run.plan.chains(arm, task) for arm in run.arms for task in run.problems}
    # The store leaves alone what it has, so an interrupted copy is simply done again.
    with Store(folder / FOLDER, run.info()) as pilot:
        for sample in pilot.samples():
            for chain, L in planned.get((sample.arm, sample.task), []):
                if chain == sample.chain and _is_chain_at(sample, L):
                    store.append(sample.with_maximum(L))


def _is_chain_at(sample: Sample, L: int) -> bool:
    """Whether a run with maximum L would have given this very chain."""
    return sample.L == L or (sample.length_invariant and sample.finish == "stop" and sample.tokens <= L)
