"""The line: generate what a plan asks for, score it, store it.

One engine call serves all tasks of an arm (a method at a CR), so the batch stays full; a chain is scored and on disk
as soon as it finishes. Everything a person sees goes through an `Observer`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hyperscale import models
from hyperscale.engines import registry
from hyperscale.errors import BudgetError, EngineError, HyperscaleError
from hyperscale.methods.arm import Arm
from hyperscale.planning import plan_file
from hyperscale.results.points import MeasuredPoint
from hyperscale.results.recording import record
from hyperscale.results.redaction import redact
from hyperscale.results.samples import Key, Sample, chain_key
from hyperscale.results.store import Store, opened
from hyperscale.run import prepare, verification
from hyperscale.run.config.resolve import ResolvedConfig
from hyperscale.run.engine_cache import EngineCache
from hyperscale.run.observer import Load, Observer
from hyperscale.run.prepare import PreparedRun, Problem
from hyperscale.scoring import graders
from hyperscale.scoring.voting import strategies
from hyperscale.tasks.task import prompt_hash
from hyperscale.utils.hub import load_tokenizer

if TYPE_CHECKING:
    from hyperscale.engines.base import Chain, ChainProgress, Request, Steering


_SHOWN = 2


def execute(
    run: PreparedRun, folder: Path | Store, observer: Observer, engines: EngineCache | None = None
) -> list[MeasuredPoint]:
    """Generate what is missing in a folder, score and store it, and derive the points.

    A folder's plan is the one it was started with, whatever ``run`` would plan now (`plan_file`).

    Args:
        run: The run.
        folder: Its folder, or the store that is open on it.
        observer: Told of everything.
        engines: Keeps what a pilot has loaded.

    Raises:
        BudgetError: The run has no plan, as only a pilot can make it (`pilot.settle`).
        VerificationError: A chain did not keep to its method's rule.
        HyperscaleError: The folder cannot be used, or the model cannot be loaded or run. Finished chains are kept.
    """
    from hyperscale import methods

    _check_words(run)
    with opened(folder, run.info) as store:
        if run.config.vote is not None:
            store.set_vote(strategies.get(run.config.vote).name)
        observer.opened(store.folder, len(store))
        for note in methods.notes(run.methods.values()):
            observer.note(note)
        if kept := prepare.kept(run, store.folder):
            run = kept
        elif run.plan.points:
            plan_file.save(run.plan, store.folder)
        else:
            raise BudgetError("the run has no plan yet: let a pilot measure the costs first")
        runner = ArmRunner(run, store, observer, engines or EngineCache())
        if models.find(run.config.model).demonstrate:
            runner.demonstrate()
        for arm in run.methods:
            runner.run_arm(arm)
        observer.stage("computing the points")
        points = store.write_points()
        observer.finished(run, store.folder, points, run.compression(store.samples()))
    return points


class ArmRunner:
    """Generates, scores and stores the chains of one arm after the other, in an open store."""

    def __init__(self, run: PreparedRun, store: Store, observer: Observer, engines: EngineCache) -> None:
        self._run, self._store, self._observer = run, store, observer
        self._graders = {task: graders.get(items[0].task.grader) for task, items in run.problems.items()}
        self._engines = engines

    def strongest(self) -> list[Arm]:
        """Arms whose first chains are worth a look: the first methods at their highest CR.

        Where each change of arms starts an engine, it is the arm that runs first.
        """
        engine = self._run.config.engine
        if any(registry.choose(engine, arm.method).shared_weights is None for arm in self._run.methods):
            return list(self._run.methods)[:1]
        highest = {arm.method: arm for arm in sorted(self._run.methods, key=lambda arm: arm.CR)}
        return [arm for arm in self._run.methods if arm in highest.values()][:_SHOWN]

    def demonstrate(self) -> None:
        """Run one chain of the first problem with the first methods, at their highest CR, to have something to show."""
        for arm in self.strongest():
            first = next(iter(self._run.requests(arm)), None)
            if first is None or self._key(arm, *first, self._run.config.seeds[0]) in self._store:
                continue
            self._observer.stage(f"a first chain with {arm}")
            for problem, sample in self.generate(arm, [first], self._run.config.seeds[0], before=True):
                self._observer.shown(arm, problem, sample)

    def run_arm(self, arm: Arm) -> None:
        """Generate every chain of an arm that the store lacks."""
        seeds = self._run.config.seeds
        requests = self._run.requests(arm)
        old = [sample.without_texts() for sample in self._store.samples() if sample.arm == arm]
        most_tokens = sum(request.L for _, request in requests)
        batches = registry.choose(self._run.config.engine, arm.method).batches
        batch_size = self._run.config.batch_size if batches else 1
        for sample in old:
            self._verify(arm, sample)
        self._observer.arm_started(arm, old, Load(len(requests) * len(seeds), most_tokens * len(seeds), batch_size))
        for seed in seeds:
            missing = self.missing(arm, requests, seed)
            if missing:
                for problem, sample in self.generate(arm, missing, seed):
                    self._observer.chain(arm, problem, sample)
        self._observer.arm_finished(arm)

    def _verify(self, arm: Arm, sample: Sample) -> None:
        verification.check(arm, self._run.methods[arm], sample, self._run.config.answer_room)

    def missing(
        self, arm: Arm, requests: "Sequence[tuple[Problem, Request]]", seed: int
    ) -> "list[tuple[Problem, Request]]":
        """Those of the requests whose chains the store lacks."""
        return [pair for pair in requests if self._key(arm, *pair, seed) not in self._store]

    def _key(self, arm: Arm, problem: Problem, request: "Request", seed: int) -> Key:
        names = {"task": problem.task.name, "problem": problem.doc.id}
        return chain_key(arm, **names, seed=seed, chain=request.chain, L=request.L)

    def generate(
        self, arm: Arm, requests: "Sequence[tuple[Problem, Request]]", seed: int, *, before: bool = False
    ) -> Iterator[tuple[Problem, Sample]]:
        """Generate, score and store chains, and yield each when it is on the disk.

        Those that are generated ``before`` the run proper can be watched.
        """
        from hyperscale.engines.base import Sampling

        config, engine = self._run.config, self._engines.engine(self._run, arm)
        sampling = Sampling(config.temperature, config.top_p, seed=seed, steering=_steering(config))
        problems = {request.problem: problem for problem, request in requests}

        def tell(progress: "ChainProgress") -> None:
            self._observer.chain_progress(arm, problems[progress.request.problem], progress)

        watch = tell if before and self._observer.watching else None
        # Where the rule depends on L, a chain index runs once per L: one engine call for each L keeps them apart.
        lengths = sorted({request.L for _, request in requests}, reverse=True)
        for group in [lengths] if arm.length_invariant else [[n] for n in lengths]:
            batch = [request for _, request in requests if request.L in group]
            limits = {(request.problem, request.chain): request.L for request in batch}
            for chain in _guarded(engine.generate(batch, sampling, watch)):
                problem, limit = problems[chain.problem], limits[chain.problem, chain.chain]
                sample = self._sample(arm, engine.name, problem, chain, limit, seed)
                self._store.append(sample)
                self._verify(arm, sample)
                yield problem, sample

    def _sample(self, arm: Arm, engine: str, problem: Problem, chain: "Chain", L: int, seed: int) -> Sample:
        task, doc = problem.task, problem.doc
        return record(
            chain,
            L,
            grader=self._graders[task.name],
            target=doc.target,
            hide=(lambda text: redact(text, doc.prompt)) if task.gated else None,
            model=self._run.config.model,
            method=arm.method,
            CR=arm.CR,
            length_invariant=arm.length_invariant,
            params=self._run.methods[arm].params(),
            engine=engine,
            dtype=self._run.config.dtype,
            kv_dtype=self._run.kv_dtype,
            task=task.name,
            task_version=task.version,
            problem=doc.id,
            level=doc.level,
            prompt_hash=prompt_hash(doc.prompt),
            seed=seed,
            kv_entry_bytes=self._run.entry_bytes,
            forces_answers=bool(self._run.config.force_answer),
        )


def _steering(config: ResolvedConfig) -> "Steering":
    from hyperscale.engines.base import Steering

    return Steering(config.extend, config.extend_word, config.force_answer)


def _check_words(run: PreparedRun) -> None:
    """Refuse words that the tokenizer cannot write before any weights are loaded."""
    from hyperscale.engines.steering import TokenSteering

    if steering := _steering(run.config):
        TokenSteering(load_tokenizer(next(iter(run.checkpoints.values())).path), steering)


def _guarded(chains: "Iterator[Chain]") -> "Iterator[Chain]":
    """Turn running out of memory into an error that says what to do."""
    try:
        yield from chains
    except HyperscaleError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise EngineError(
                "out of memory: finished chains are kept; run the same command again with a smaller --batch-size"
            ) from None
        raise
