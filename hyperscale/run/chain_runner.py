"""Generates the chains of a run's arms, scores them, and stores each as soon as it has finished.

One engine call serves all tasks of an arm (a method at a CR), so the batch stays full.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from hyperscale.engines import registry
from hyperscale.errors import EngineError, HyperscaleError
from hyperscale.executors.faults import append_faults
from hyperscale.methods.arm import Arm
from hyperscale.results.recording import record, record_options
from hyperscale.results.redaction import redact
from hyperscale.results.samples import Key, Sample, chain_key
from hyperscale.results.store import Store
from hyperscale.run import verification
from hyperscale.run.engines.cache import EngineCache
from hyperscale.run.observer import ArmSize, RunObserver
from hyperscale.run.prepare import PreparedRun, Problem
from hyperscale.run.prompting import steering_of
from hyperscale.run.request_order import longest_first
from hyperscale.tasks.task import prompt_hash

if TYPE_CHECKING:
    from hyperscale.engines.base import Chain, ChainProgress, Engine, Request

_MAX_DEMONSTRATED_ARMS = 2  # arms of which a first chain is shown


class ChainRunner:
    """Generates, scores and stores the chains of one arm after the other, in an open store."""

    def __init__(self, run: PreparedRun, store: Store, observer: RunObserver, engines: EngineCache) -> None:
        self._run, self._store, self._observer = run, store, observer
        self._graders = {task: items[0].task.new_grader() for task, items in run.problems.items()}
        self._engines = engines

    def arms_to_show(self) -> list[Arm]:
        """Arms of which a first chain is shown: the first methods at their highest CR.

        Where each change of arms starts an engine, it is only the arm that runs first.
        """
        engine = self._run.config.engine
        if any(registry.choose(engine, arm.method).shared_weights is None for arm in self._run.arms):
            return list(self._run.arms)[:1]
        highest = {arm.method: arm for arm in sorted(self._run.arms, key=lambda arm: (arm.CR, -arm.kv_budget))}
        return [arm for arm in self._run.arms if arm in highest.values()][:_MAX_DEMONSTRATED_ARMS]

    def demonstrate(self) -> None:
        """Run one chain of the first problem with the first methods, at their highest CR, to have something to show."""
        for arm in self.arms_to_show():
            first = next(iter(self._run.requests(arm)), None)
            if first is None or self._key(arm, *first, self._run.config.seeds[0]) in self._store:
                continue
            self._observer.on_stage(f"a first chain with {arm}")
            for problem, sample in self.generate(arm, [first], self._run.config.seeds[0], watched=True):
                self._observer.on_demonstration(arm, problem, sample)

    def run_arm(self, arm: Arm) -> None:
        """Generate every chain of an arm that the store lacks."""
        seeds = self._run.config.seeds
        requests = self._run.requests(arm)
        stored = [sample.without_texts() for sample in self._store.samples()]
        samples = [sample for sample in stored if sample.arm == arm]
        if self._run.placement.is_pool:
            requests = longest_first(requests, stored)
        max_tokens = sum(request.L for _, request in requests)
        # Some engines run one chain after the other, whatever the batch size.
        batches = registry.choose(self._run.config.engine, arm.method).batches
        batch_size = self._run.chains_in_flight if batches else self._run.placement.engines
        # Chains of an earlier process are held to the rule too: a file may have been changed.
        for sample in samples:
            self._verify(arm, sample)
        plan = self._run.plan
        chains_at = {(task, L): n for task in self._run.problems for L, n in plan.chains_at_lengths(arm, task).items()}
        size = ArmSize(len(requests) * len(seeds), max_tokens * len(seeds), batch_size, chains_at)
        self._observer.on_arm_start(arm, samples, size)
        for seed in seeds:
            missing = self.missing(arm, requests, seed)
            if missing:
                for problem, sample in self.generate(arm, missing, seed):
                    self._observer.on_chain(arm, problem, sample)
        self._observer.on_arm_end(arm)

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
        self, arm: Arm, requests: "Sequence[tuple[Problem, Request]]", seed: int, *, watched: bool = False
    ) -> Iterator[tuple[Problem, Sample]]:
        """Generate, score and store chains, and yield each when it is on the disk.

        An observer that watches chains is called at every token of chains that are ``watched``.
        """
        from hyperscale.engines.base import Sampling

        config, engine = self._run.config, self._engines.engine(self._run, arm, self._observer.on_note)
        if registry.choose(config.engine, arm.method).batches:
            self._store.add_batch_size(config.batch_size)
        scored = [problem for problem, _ in requests if problem.scored]
        requests = [pair for pair in requests if not pair[0].scored]
        yield from self._score(arm, engine, scored, seed)
        sampling = Sampling(
            config.temperature,
            config.top_p,
            config.top_k,
            config.min_p,
            config.repetition_penalty,
            seed=seed,
            steering=steering_of(config),
            marks=self._run.prompt_format.marks,
        )
        problems = {request.problem: problem for problem, request in requests}
        record_faults = partial(self._record_faults, arm, problems, seed)

        def report(progress: "ChainProgress") -> None:
            self._observer.on_chain_progress(arm, problems[progress.request.problem], progress)

        watch = report if watched and self._observer.watches_chains else None
        # Texts that end an answer are the task's: tasks that have the same ones decode together.
        stops = {problem.task.stop for problem in problems.values()}
        # Where the rule depends on L, a chain index runs once per L: one engine call for each L keeps them apart.
        lengths = sorted({request.L for _, request in requests}, reverse=True)
        groups = [lengths] if arm.length_invariant else [[L] for L in lengths]
        for group, stop in product(groups, sorted(stops)):
            batch = [r for problem, r in requests if r.L in group and problem.task.stop == stop]
            sampling = replace(sampling, stop=stop, stop_in_answer=bool(stop))
            lengths_of_chains = {(request.problem, request.chain): request.L for request in batch}
            try:
                for chain in _explain_out_of_memory(engine.generate(batch, sampling, watch)):
                    record_faults()
                    problem, L = problems[chain.problem], lengths_of_chains[chain.problem, chain.chain]
                    sample = self._sample(arm, engine.name, problem, chain, L, seed)
                    # On the disk first: a chain that broke its rule is kept, to be looked at.
                    self._store.append(sample)
                    self._verify(arm, sample)
                    yield problem, sample
            finally:
                record_faults()

    def _score(
        self, arm: Arm, engine: "Engine", problems: Sequence[Problem], seed: int
    ) -> Iterator[tuple[Problem, Sample]]:
        """Score, grade and store problems of likelihood: a problem when all its options are there."""
        from hyperscale.engines.base import Request, Sampling

        by_id = {problem.request_id: problem for problem in problems}
        record_faults = partial(self._record_faults, arm, by_id, seed)
        # Neighbours with the same context share its prefill.
        batch = [
            Request(problem.request_id, index, context, len(ids), (len(ids),), forced_ids=ids, opened="")
            for problem in problems
            for index, (context, ids) in enumerate(problem.scored)
            if ids
        ]
        counts = Counter(request.problem for request in batch)
        done: dict[str, dict[int, Chain]] = {name: {} for name in by_id}
        # An option that the tokenizer merges into its context has nothing to score.
        for name in [name for name in done if not counts[name]]:
            yield by_id[name], self._record_scored(arm, engine.name, by_id[name], done.pop(name), seed)
        try:
            for chain in _explain_out_of_memory(engine.generate(batch, Sampling(0.0, seed=seed))):
                record_faults()
                problem, chains = by_id[chain.problem], done[chain.problem]
                chains[chain.chain] = chain
                if len(chains) == counts[chain.problem]:
                    yield problem, self._record_scored(arm, engine.name, problem, done.pop(chain.problem), seed)
        finally:
            record_faults()

    def _record_scored(
        self, arm: Arm, engine: str, problem: Problem, chains: "Mapping[int, Chain]", seed: int
    ) -> Sample:
        """Grade and store a problem of likelihood, from the chains of those options that have tokens."""
        options = zip(problem.doc.options, problem.scored, strict=True)
        sample = record_options(
            [chains.get(index) for index in range(len(problem.scored))],
            [(option.text, len(context)) for option, (context, _) in options],
            problem.task.base_length,
            grader=self._graders[problem.task.name],
            target=problem.doc.target,
            **self._identity(arm, engine, problem, seed),
        )
        self._store.append(sample)
        self._verify(arm, sample)
        return sample

    def _record_faults(self, arm: Arm, problems: Mapping[str, Problem], seed: int) -> None:
        """Keep what went wrong with engines side by side, and tell it."""
        faults = []
        for fault in self._engines.take_faults():
            self._observer.on_note(str(fault))
            fault = replace(fault, arm=str(arm), seed=seed)
            if fault.problem is not None:
                problem = problems[fault.problem]
                # Of a likelihood task's problem all options were given up: it is one, as its sample is.
                count = 1 if problem.scored else fault.chains
                fault = replace(fault, task=problem.task.name, problem=problem.doc.id, chains=count)
            faults.append(fault)
        if faults:
            append_faults(self._store.folder, faults)

    def _sample(self, arm: Arm, engine: str, problem: Problem, chain: "Chain", L: int, seed: int) -> Sample:
        task, doc = problem.task, problem.doc
        return record(
            chain,
            L,
            grader=self._graders[task.name],
            target=doc.target,
            hide=partial(redact, question=doc.prompt, marks=self._run.prompt_format.marks) if task.gated else None,
            forces_answers=bool(self._run.config.force_answer),
            **self._identity(arm, engine, problem, seed),
        )

    def _identity(self, arm: Arm, engine: str, problem: Problem, seed: int) -> dict[str, Any]:
        """The fields of a sample that no chain tells."""
        task, doc = problem.task, problem.doc
        return {
            "model": self._run.config.model,
            "method": arm.method,
            "CR": arm.CR,
            "kv_budget": arm.kv_budget,
            "length_invariant": arm.length_invariant,
            "params": self._run.methods[arm].params(),
            "engine": engine,
            "dtype": self._run.config.dtype,
            "kv_dtype": self._run.kv_dtype,
            "task": task.name,
            "task_version": task.version,
            "problem": doc.id,
            "level": doc.level,
            "prompt_hash": prompt_hash(problem.prompt.text),
            "message_hash": prompt_hash(doc.prompt),
            "seed": seed,
            "kv_entry_bytes": self._run.predictor.entry_bytes_of(arm),
            "opened": problem.prompt.opened,
            "marks": self._run.prompt_format.marks,
        }


def _explain_out_of_memory(chains: "Iterator[Chain]") -> "Iterator[Chain]":
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
