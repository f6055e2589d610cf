"""Makes a gate's record of run folders: accuracies and costs of each problem, from each arm's chains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hyperscale
from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import AXES, FORMAT, ArmRecord, CutRecord, GateRecord, TaskRecord
from hyperscale.planning.arms import Arm
from hyperscale.results.folder import Run
from hyperscale.results.points import Cell, cells

Sample = Mapping[str, Any]
_DECIMALS = 4  # of an accuracy in [0, 1]: 0.01 points
_DIGITS = 5  # of a cost
_TEXTS = ("run", "model", "engine", "task_version", "prompt_hash", "finish")


class _ArmKey(NamedTuple):
    model: str
    task: str
    method: str
    CR: float

    def __str__(self) -> str:
        return f"{self.method} {self.CR:g}× on {self.task}"


def record_runs(runs: Sequence[Run]) -> GateRecord:
    """The record of finished runs; runs of the same settings with other seeds are united.

    Args:
        runs: As `hyperscale.results.read` gives them.

    Raises:
        ResultsError: A run is not finished, two runs hold the same chain, or their chains of an arm differ in problems,
            prompts, task version or parameters.
        TaskError: A task is not known.
    """
    arms: dict[_ArmKey, list[Sample]] = {}
    for sample in _check_samples(runs):
        arm = _ArmKey(sample["model"], sample["task"], sample["method"], float(sample["CR"]))
        arms.setdefault(arm, []).append(sample)
    if not arms:
        raise ResultsError("the results hold no finished chain: run the command that made their folder again")
    problems = {task: _problems(task, arms) for task in dict.fromkeys(arm.task for arm in arms)}
    for arm, samples in arms.items():
        _check_complete(arm, samples, problems[arm.task])
    # Points of different runs and engines stay apart; here they are one arm's, and its settings name the engine.
    samples_of_one_run = [{**sample, "run": "", "engine": ""} for samples in arms.values() for sample in samples]
    points: dict[_ArmKey, list[Cell]] = {}
    for point in cells(samples_of_one_run):
        key = _ArmKey(point.arm.model, point.arm.task, point.arm.method, point.arm.CR)
        points.setdefault(key, []).append(point)
    infos = {run.folder.resolve().name: run.info for run in runs}
    tasks = {
        task: TaskRecord(
            version=_common_version(task, [s for arm in arms if arm.task == task for s in arms[arm]]),
            vote=next(group[0].vote for arm, group in points.items() if arm.task == task),
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
                **arm._asdict(),
                about=_about(arm, arms[arm], infos),
                cuts=_cuts(points[arm], list(problems[arm.task]), arms[arm]),
            )
            for arm in sorted(arms)
        ),
    )


def _check_samples(runs: Sequence[Run]) -> Sequence[Sample]:
    """Every chain of the runs; refuses one that lacks a text field, or that two runs hold."""
    folders: dict[tuple[Any, ...], str] = {}  # of each chain
    samples = []
    for run in runs:
        for sample in run.samples:
            if bad := [name for name in _TEXTS if not isinstance(sample.get(name), str)]:
                raise ResultsError(
                    f"a sample in {run.folder} has no {bad[0]}: its file is corrupt or of another version"
                )
            key = (sample["model"], *results.key(dict(sample)))
            if key in folders:
                where = f"{folders[key]} and {run.folder}" if folders[key] != str(run.folder) else f"{run.folder} twice"
                raise ResultsError(
                    f"the same chain ({sample['task']}/{sample['problem']}, {sample['method']} {sample['CR']:g}×, "
                    f"seed {sample['seed']}) is in {where}: pass the folder of one run"
                )
            folders[key] = str(run.folder)
            samples.append(sample)
    return samples


def _problems(task: str, arms: Mapping[_ArmKey, Sequence[Sample]]) -> dict[str, str]:
    """A task's problems and the hashes of their prompts."""
    prompts: dict[str, str] = {}
    for sample in (sample for arm, samples in arms.items() if arm.task == task for sample in samples):
        if prompts.setdefault(sample["problem"], sample["prompt_hash"]) != sample["prompt_hash"]:
            raise ResultsError(f"{task}/{sample['problem']} was asked with two prompts: pass the folder of one run")
    return dict(sorted(prompts.items()))


def _check_complete(arm: _ArmKey, samples: Sequence[Sample], problems: Mapping[str, str]) -> None:
    """Refuse an arm in which some problem lacks a chain that another one has."""
    chains: dict[str, set[tuple[int, int, int]]] = {problem: set() for problem in problems}
    for sample in samples:
        chains[sample["problem"]].add((sample["seed"], sample["chain"], sample["max_new_tokens"]))
    everything = set().union(*chains.values())
    n_complete = sum(chains_of_problem == everything for chains_of_problem in chains.values())
    if n_complete < len(chains):
        raise ResultsError(
            f"{n_complete} of {len(chains)} problems have every chain of {arm}: "
            "finish the run with the command that began it, or pass the folder of one run"
        )


def _common_version(task: str, samples: Sequence[Sample]) -> str:
    versions = sorted({str(sample["task_version"]) for sample in samples})
    if len(versions) > 1:
        raise ResultsError(
            f"the results hold several versions of {task} ({', '.join(versions)}): pass the folder of one run"
        )
    return versions[0]


def _about(arm: _ArmKey, samples: Sequence[Sample], infos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What may differ from other results of this arm without making them incomparable."""
    if any(sample.get("params") != samples[0].get("params") for sample in samples):
        raise ResultsError(f"the chains of {arm} differ in the method's parameters: pass the folder of one run")
    run_infos = [infos.get(name, {}) for name in sorted({sample["run"] for sample in samples})]
    name = str(Arm(arm.method, arm.CR, True))
    return {
        "seeds": sorted({sample["seed"] for sample in samples}),
        "params": samples[0].get("params"),
        "engine": _unique(sample["engine"] for sample in samples),
        "dtype": _unique(sample.get("dtype") for sample in samples),
        "temperature": _unique((info.get("config") or {}).get("temperature") for info in run_infos),
        "top_p": _unique((info.get("config") or {}).get("top_p") for info in run_infos),
        "weights": _unique((info.get("checkpoints") or {}).get(name) for info in run_infos),
    }


def _unique(values: Any) -> Any:
    """The one value there is, or all of them."""
    distinct = list({repr(value): value for value in values}.values())
    return distinct[0] if len(distinct) == 1 else sorted(distinct, key=repr)


def _cuts(points: Sequence[Cell], problems: Sequence[str], samples: Sequence[Sample]) -> tuple[CutRecord, ...]:
    by_length: dict[int, list[Cell]] = {}
    for point in sorted(points, key=lambda point: (point.L, point.W)):
        by_length.setdefault(point.L, []).append(point)
    cuts = []
    for length, group in by_length.items():
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
    chains = {
        (sample["seed"], sample["chain"])
        for sample in samples
        if sample["max_new_tokens"] == length
        or (sample["max_new_tokens"] > length and sample.get("length_invariant", True))
    }
    return tuple(sorted(Counter(seed for seed, _ in chains).values()))


def _places(point: Cell, problems: Sequence[str]) -> list[int]:
    """The index of each problem in a point's values."""
    place = {problem: i for i, problem in enumerate(point.problems)}
    if missing := [problem for problem in problems if problem not in place]:
        raise ResultsError(
            f"{point.arm.task}/{missing[0]} has no chain of {point.arm.method} that can be cut at L={point.L}, as "
            "other problems have: pass the folder of one run"
        )
    return [place[problem] for problem in problems]
