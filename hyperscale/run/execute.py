"""Executes a run: makes its plan final, generates what its folder lacks, and derives the points.

A chain is scored and on disk as soon as it finishes. Everything a person sees goes through a `RunObserver`.
"""

from contextlib import closing
from pathlib import Path

from hyperscale import models
from hyperscale.executors.faults import forget_given_up
from hyperscale.results.points import MeasuredPoint
from hyperscale.results.store import Store
from hyperscale.run.chain_runner import ChainRunner
from hyperscale.run.context import check_plan
from hyperscale.run.engines.cache import EngineCache
from hyperscale.run.engines.processes import start_notes
from hyperscale.run.observer import RunObserver
from hyperscale.run.pilot import finalize_plan
from hyperscale.run.prepare import PreparedRun
from hyperscale.run.prompting import old_chain_notes
from hyperscale.scoring.voting import strategies


def execute_run(run: PreparedRun, folder: Path, observer: RunObserver) -> list[MeasuredPoint]:
    """Generate what is missing in a folder, score and store it, and derive the points.

    A folder's plan is the one it was started with, whatever ``run`` would plan now (`pilot.finalize_plan`).

    Args:
        run: The run.
        folder: Its folder, made if need be.
        observer: Called at every step.

    Raises:
        BudgetError: No point fits the budget.
        VerificationError: A chain did not keep to its method's rule.
        HyperscaleError: The folder cannot be used, or the model cannot be loaded or run. Finished chains are kept.
    """
    # One lock and one set of weights from the pilot to the points.
    with Store(folder, run.info()) as store, closing(EngineCache()) as engines:
        forget_given_up(store.folder)
        run = finalize_plan(run, store, observer, engines)
        check_plan(run.plan, {shape.name: shape.lengths for shape in run.shapes})
        observer.on_plan(run, store.folder)
        if run.config.vote is not None:
            store.set_vote(strategies.get(run.config.vote).name)
        observer.on_open(store.folder, len(store))
        prompts = [problem.prompt for problems in run.problems.values() for problem in problems]
        for note in (
            *store.notes,
            *old_chain_notes(prompts, store.samples()),
            *run.notes,
            *start_notes(run, engines.started),
        ):
            observer.on_note(note)
        # A built-in model shows a first chain of some arms before the long run starts.
        runner = ChainRunner(run, store, observer, engines)
        if models.find(run.config.model).demonstrate:
            runner.demonstrate()
        for arm in engines.order(run):
            runner.run_arm(arm)
        observer.on_stage("computing the points")
        points = store.write_points()
        observer.on_finish(run, store.folder, points, run.compression(store.samples()))
    return points
