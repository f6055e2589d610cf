"""Makes a gate's record of run folders: accuracies and costs of each problem, from each arm's chains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

import hyperscale
from hyperscale.errors import ResultsError
from hyperscale.executors.faults import given_up
from hyperscale.gate.baseline import ALL_WEIGHTS, AXES, DIGITS, FORMAT, ArmRecord, CutRecord, GateRecord, TaskRecord
from hyperscale.methods.arm import Arm
from hyperscale.results.folder import Run, RunChain
from hyperscale.results.manifest import complete_config
from hyperscale.results.points import MeasuredPoint, make_points
from hyperscale.results.samples import Key, Sample
from hyperscale.results.truncation import is_eligible

_DECIMALS = 4  # of an accuracy in [0, 1]: 0.01 points
_DIGITS = 5  # of a cost
_COPIED = 0.1  # share of an arm's chains from which on repetitions are noted: short ones repeat by chance
_UNUSED = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # values of settings of sampling that change nothing


class _ArmOnTask(NamedTuple):
    """An arm on a task, whichever runs and engines its chains are of."""

    model: str
    task: str
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm} on {self.task}"


def record_runs(runs: Sequence[Run]) -> GateRecord:
    """The record of finished runs; runs of the same settings with other seeds are united.

    Args:
        runs: As `hyperscale.results.read` gives them.

    Raises:
        ResultsError: A run is not finished or has given problems up, two runs hold the same chain, or their chains of
            an arm differ in problems, prompts, task version or parameters.
        TaskError: A task is not known.
    """
    _check_given_up(runs)
    chains: dict[_ArmOnTask, list[RunChain]] = {}
    for chain in _check_chains(runs):
        arm_on_task = _ArmOnTask(chain.sample.model, chain.sample.task, chain.sample.arm)
        chains.setdefault(arm_on_task, []).append(chain)
    if not chains:
        raise ResultsError("the results hold no finished chain: run the command that made their folder again")
    problems = {task: _problems(task, chains) for task in dict.fromkeys(arm_on_task.task for arm_on_task in chains)}
    for arm_on_task, part in chains.items():
        _check_complete(arm_on_task, part, problems[arm_on_task.task])
    points = {arm_on_task: _points(part) for arm_on_task, part in chains.items()}
    tasks = {
        task: TaskRecord(
            version=_common_version(
                task,
                [chain.sample for arm_on_task, part in chains.items() if arm_on_task.task == task for chain in part],
            ),
            vote=next(part[0].vote for arm_on_task, part in points.items() if arm_on_task.task == task),
            problems=prompts,
        )
        for task, prompts in sorted(problems.items())
    }
    return GateRecord(
        format=FORMAT,
        hyperscale=hyperscale.__version__,
        tasks=tasks,
        arms=tuple(
            ArmRecord(
                model=arm_on_task.model,
                task=arm_on_task.task,
                method=arm_on_task.arm.method,
                CR=arm_on_task.arm.CR,
                kv_budget=arm_on_task.arm.kv_budget,
                about=_about(arm_on_task, chains[arm_on_task]),
                chains=_fingerprints(list(problems[arm_on_task.task]), chains[arm_on_task]),
                cuts=_cuts(
                    points[arm_on_task],
                    list(problems[arm_on_task.task]),
                    [chain.sample for chain in chains[arm_on_task]],
                ),
            )
            for arm_on_task in sorted(chains)
        ),
    )


def find_copies(runs: Sequence[Run]) -> list[str]:
    """A sentence for each arm of which chains repeat others of their problem: they count as noise that is not there.

    Args:
        runs: Of one set of results.
    """
    arms: dict[_ArmOnTask, Counter[tuple[str, int, int]]] = {}
    for sample in (sample for run in runs for sample in run.samples):
        arm_on_task = _ArmOnTask(sample.model, sample.task, sample.arm)
        # A method that runs once per L has its chains once for each.
        arms.setdefault(arm_on_task, Counter())[sample.problem, sample.key.L, hash(_contents(sample))] += 1
    notes = []
    for arm_on_task, counts in arms.items():
        total, repeated = counts.total(), counts.total() - len(counts)
        if repeated and repeated >= _COPIED * total:
            notes.append(
                f"{repeated} of {total} chains of {arm_on_task} repeat another chain of their problem word for word, "
                "as copies do, and greedy sampling: they are no further evidence"
            )
    return notes


def _contents(sample: Sample) -> tuple[object, ...]:
    """What a chain says, and at what cost, whatever its seed and number are."""
    whole = sample.whole
    return (sample.L, sample.text, whole.tokens, whole.logprob, whole.kv_reads, whole.peak_kv, whole.answer)


def _fingerprints(problems: Sequence[str], chains: Sequence[RunChain]) -> str:
    """Eight hexadecimal digits for each problem, of all its chains in an order that no seed changes."""
    of_problem: dict[str, list[str]] = {problem: [] for problem in problems}
    for sample, _ in chains:
        of_problem[sample.problem].append(repr(_contents(sample)))
    return "".join(
        blake2b("\n".join(sorted(contents)).encode("utf-8", "surrogatepass"), digest_size=DIGITS // 2).hexdigest()
        for contents in of_problem.values()
    )


def _check_chains(runs: Sequence[Run]) -> list[RunChain]:
    """Every chain of the runs; refuses one that two runs hold."""
    folders: dict[tuple[str, Key], str] = {}
    chains = []
    for run in runs:
        for sample in run.samples:
            key = sample.model, sample.key
            if key in folders:
                where = f"{folders[key]} and {run.folder}" if folders[key] != str(run.folder) else f"{run.folder} twice"
                raise ResultsError(
                    f"the same chain ({sample.task}/{sample.problem}, {sample.arm}, "
                    f"seed {sample.seed}) is in {where}: pass the folder of one run"
                )
            folders[key] = str(run.folder)
            chains.append(RunChain(sample, run))
    return chains


def _check_given_up(runs: Sequence[Run]) -> None:
    """Refuse a run in which problems were given up: which these are is not left to chance."""
    for run in runs:
        for (arm, task), problems in given_up(run.faults).items():
            raise ResultsError(
                f"{run.folder} lacks {len(problems)} problems of {task} with {arm} ({min(problems)}, …), given up "
                "because engines were lost with them: run the command that made it again"
            )


def _points(chains: Sequence[RunChain]) -> list[MeasuredPoint]:
    """The points of one arm on a task; its runs and engines, which would stay apart, are united."""
    vote = next((chain.run.vote for chain in chains if chain.run.vote), None)
    widths = {width for chain in chains for width in chain.run.widths}
    return make_points([replace(chain.sample, engine="") for chain in chains], vote=vote, widths=widths)


def _problems(task: str, chains: Mapping[_ArmOnTask, Sequence[RunChain]]) -> dict[str, str]:
    """A task's problems and the hashes of their prompts."""
    prompts: dict[str, str] = {}
    for sample, _ in (chain for arm_on_task, part in chains.items() if arm_on_task.task == task for chain in part):
        if prompts.setdefault(sample.problem, sample.question_hash) != sample.question_hash:
            raise ResultsError(f"{task}/{sample.problem} was asked with two prompts: pass the folder of one run")
    return dict(sorted(prompts.items()))


def _check_complete(arm_on_task: _ArmOnTask, chains: Sequence[RunChain], problems: Mapping[str, str]) -> None:
    """Refuse an arm in which some problem lacks a chain that another one has."""
    present: dict[str, set[tuple[int, int, int]]] = {problem: set() for problem in problems}
    for sample, _ in chains:
        present[sample.problem].add((sample.seed, sample.chain, sample.L))
    # Short chains finish first, so what an interrupted run has is no random sample: all or nothing.
    everything = set().union(*present.values())
    n_complete = sum(keys == everything for keys in present.values())
    if n_complete < len(present):
        raise ResultsError(
            f"{n_complete} of {len(present)} problems have every chain of {arm_on_task}: "
            "finish the run with the command that began it, or pass the folder of one run"
        )


def _common_version(task: str, samples: Sequence[Sample]) -> str:
    versions = sorted({sample.task_version for sample in samples})
    if len(versions) > 1:
        raise ResultsError(
            f"the results hold several versions of {task} ({', '.join(versions)}): pass the folder of one run"
        )
    return versions[0]


def _about(arm_on_task: _ArmOnTask, chains: Sequence[RunChain]) -> dict[str, Any]:
    """Settings that may differ from other results of this arm: a difference is noted, not refused."""
    samples = [chain.sample for chain in chains]
    if any(sample.params != samples[0].params for sample in samples):
        raise ResultsError(f"the chains of {arm_on_task} differ in the method's parameters: pass the folder of one run")
    infos = {chain.run.name: chain.run.info for chain in chains}
    run_infos = [infos[name] for name in sorted(infos)]
    return {
        "seeds": sorted({sample.seed for sample in samples}),
        "params": samples[0].params,
        "engine": _unique(sample.engine for sample in samples),
        "dtype": _unique(sample.dtype for sample in samples),
        "temperature": _unique((info.get("config") or {}).get("temperature") for info in run_infos),
        "top_p": _unique((info.get("config") or {}).get("top_p") for info in run_infos),
        **_used_settings(run_infos),
        # The first of runs that know no better, and for baselines of such runs: the ends of large files alone.
        "weights": _unique((info.get("checkpoints") or {}).get(str(arm_on_task.arm)) for info in run_infos),
        **_all_weights(arm_on_task.arm, run_infos),
    }


def _all_weights(arm: Arm, infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What identifies all of an arm's weights; nothing if a run is from before there was such an identity."""
    identities = [(info.get("weights") or {}).get(str(arm)) for info in infos]
    return {} if None in identities else {ALL_WEIGHTS: _unique(identities)}


def _used_settings(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of sampling that not every run has used; left out where no run has, as in baselines from before them."""
    configs = [complete_config(info.get("config") or {}) for info in infos]
    values = {name: _unique(config[name] for config in configs) for name in _UNUSED}
    return {name: value for name, value in values.items() if value != _UNUSED[name]}


def _unique(values: Any) -> Any:
    """The one value there is, or all of them."""
    # By repr, as values read from JSON may be lists, which do not hash.
    distinct = list({repr(value): value for value in values}.values())
    return distinct[0] if len(distinct) == 1 else sorted(distinct, key=repr)


def _cuts(points: Sequence[MeasuredPoint], problems: Sequence[str], samples: Sequence[Sample]) -> tuple[CutRecord, ...]:
    by_length: dict[int, list[MeasuredPoint]] = {}
    for point in sorted(points, key=lambda point: (point.L, point.W)):
        by_length.setdefault(point.L, []).append(point)
    cuts = []
    for length, group in by_length.items():
        # Costs are stored once, of one chain: every W at this L rests on the same chains, and costs W times as much.
        first = group[0]
        order = _places(first, problems)
        costs = {
            axis: tuple(float(f"{value:.{_DIGITS}g}") for value in (first.costs[axis] / first.W)[order])
            for axis in AXES
        }
        accuracy = {}
        for point in group:
            values = point.accuracy[_places(point, problems)]
            accuracy[point.W] = tuple(round(float(value), _DECIMALS) for value in values)
        cuts.append(CutRecord(L=length, chains=_count_chains(samples, length), accuracy=accuracy, **costs))
    return tuple(cuts)


def _count_chains(samples: Sequence[Sample], length: int) -> tuple[int, ...]:
    """How many chains of each seed can be cut at L; the same for every problem of a complete arm."""
    chains = {(sample.seed, sample.chain) for sample in samples if is_eligible(sample, length)}
    return tuple(sorted(Counter(seed for seed, _ in chains).values()))


def _places(point: MeasuredPoint, problems: Sequence[str]) -> list[int]:
    """The index of each problem in a point's values."""
    place = {problem: i for i, problem in enumerate(point.problems)}
    if missing := [problem for problem in problems if problem not in place]:
        raise ResultsError(
            f"{point.series.task}/{missing[0]} has no chain of {point.series.method} that can be cut at L={point.L}, "
            "as other problems have: pass the folder of one run"
        )
    return [place[problem] for problem in problems]
