"""Works out which arms of a run share an engine's process, and what each engine is built from."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import ceil

from hyperscale.engines import registry
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.methods.arm import Arm
from hyperscale.run.prepare import PreparedRun


def spec_of(run: PreparedRun, arm: Arm) -> tuple[EngineProvider, EngineSpec]:
    """The provider of an arm's engine, and what it runs."""
    config = run.config
    spec = EngineSpec(
        checkpoint=run.checkpoints[arm].path,
        method=run.methods[arm],
        batch_size=config.batch_size,
        device=config.device,
        dtype=config.dtype,
        kv_dtype=config.kv_dtype,
        cuda_graphs=config.cuda_graphs,
        gpu_memory=config.gpu_memory,
        max_tokens=run.max_sequence_tokens,
        compilation=config.compilation,
        tensor_parallel=config.tensor_parallel,
    )
    return registry.choose(config.engine, arm.method), spec


def process_key(run: PreparedRun, arm: Arm) -> Hashable:
    """See `EngineProvider.process_key`."""
    provider, spec = spec_of(run, arm)
    return provider.process_key(spec)


def group_arms(run: PreparedRun) -> list[list[Arm]]:
    """The arms of a run by the process that runs them, in the order of the first of each."""
    groups: dict[Hashable, list[Arm]] = {}
    for arm in run.arms:
        key = process_key(run, arm)
        groups.setdefault((arm,) if key is None else key, []).append(arm)
    return list(groups.values())


def with_methods(run: PreparedRun, arms: Sequence[Arm], spec: EngineSpec) -> EngineSpec:
    """What an engine is built from that runs these arms in turn."""
    return replace(spec, methods=tuple(run.methods[arm] for arm in arms), planned_steps=planned_steps(run, arms))


def planned_steps(run: PreparedRun, arms: Sequence[Arm]) -> int | None:
    """Decode steps that an engine makes at most for arms, if every chain runs to its L; None if nothing is planned."""
    if not run.plan.points:
        return None
    seeds, total = len(run.config.seeds), 0
    for arm in arms:
        longest = max((L for task in run.counts for _, L in run.plan.chains(arm, task)), default=0)
        total += seeds * max(longest, ceil(run.plan.max_tokens(arm, run.counts) / run.chains_in_flight))
    return total


def start_notes(run: PreparedRun, started: EngineSpec | None = None) -> list[str]:
    """What is to be said of how the engines of a run are started.

    Args:
        run: The run.
        started: What the engine in memory was built from, as by a pilot, when less was known; None if there is none.
    """
    notes = []
    for arms in group_arms(run):
        provider, spec = spec_of(run, arms[0])
        if started is not None and provider.process_key(spec) == provider.process_key(started):
            note = provider.start_note(started)
        else:
            note = provider.start_note(with_methods(run, arms, spec))
        notes += [f"{', '.join(map(str, arms))}: {note}"] if note else []
    return notes
