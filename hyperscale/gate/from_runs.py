"""From run folders to a record: what each arm's chains say of each problem."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hyperscale
from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import AXES, FORMAT, ArmRecord, CutRecord, Record, TaskRecord
from hyperscale.planning.arms import Arm
from hyperscale.results.folder import Run
from hyperscale.results.points import Cell, cells

Sample = Mapping[str, Any]
_DECIMALS = 4  # of a share: 0.01 points of accuracy
_DIGITS = 5  # of a cost
_TEXTS = ("run", "model", "engine", "task_version", "prompt_hash", "finish")


class _Arm(NamedTuple):
    model: str
    task: str
    method: str
    CR: float

    def __str__(self) -> str:
        return f"{self.method} {self.CR:g}× on {self.task}"


def record(runs: Sequence[Run]) -> Record:
    """The record of finished runs; runs of the same settings with other seeds are united.

    Args:
        runs: As `hyperscale.results.read` gives them.

    Raises:
        ResultsError: A run is not finished, two runs hold the same chain, or their chains of an arm differ in problems,
            prompts, task version or parameters.
        TaskError: A task is not known.
    """
    arms: dict[_Arm, list[Sample]] = {}
    for sample in _distinct(runs):
        arm = _Arm(sample["model"], sample["task"], sample["method"], float(sample["CR"]))
        arms.setdefault(arm, []).append(sample)
    if not arms:
        raise ResultsError("the results hold no finished chain: run the command that made their folder again")
    problems = {task: _problems(task, arms) for task in dict.fromkeys(arm.task for arm in arms)}
    for arm, samples in arms.items():
        _complete(arm, samples, problems[arm.task])
    # Cells of different runs and engines stay apart; here they are one arm's, and its settings name the engine.
    united = [{**sample, "run": "", "engine": ""} for samples in arms.values() for sample in samples]
    found: dict[_Arm, list[Cell]] = {}
    for cell in cells(united):
        found.setdefault(_Arm(cell.arm.model, cell.arm.task, cell.arm.method, cell.arm.CR), []).append(cell)
    infos = {run.folder.resolve().name: run.info for run in runs}
    tasks = {
        task: TaskRecord(
            version=_one(f"versions of {task}", [s for arm in arms if arm.task == task for s in arms[arm]]),
            vote=next(part[0].vote for arm, part in found.items() if arm.task == task),
            problems=prompts,
        )
        for task, prompts in sorted(problems.items())
    }
    return Record(
        format=FORMAT,
        hyperscale=hyperscale.__version__,
        tasks=tasks,
        arms=tuple(
            ArmRecord(
                **arm._asdict(),
                about=_about(arm, arms[arm], infos),
                cuts=_cuts(found[arm], list(problems[arm.task]), arms[arm]),
            )
            for arm in sorted(arms)
        ),
    )


def _distinct(runs: Sequence[Run]) -> Sequence[Sample]:
    """Every chain, checked for what points alone do not need."""
    seen: dict[tuple[Any, ...], str] = {}
    found = []
    for run in runs:
        for sample in run.samples:
            if bad := [name for name in _TEXTS if not isinstance(sample.get(name), str)]:
                raise ResultsError(
                    f"a sample in {run.folder} has no {bad[0]}: its file is corrupt or of another version"
                )
            key = (sample["model"], *results.key(dict(sample)))
            if key in seen:
                where = f"{seen[key]} and {run.folder}" if seen[key] != str(run.folder) else f"{run.folder} twice"
                raise ResultsError(
                    f"the same chain ({sample['task']}/{sample['problem']}, {sample['method']} {sample['CR']:g}×, "
                    f"seed {sample['seed']}) stands in {where}: pass the folder of one run"
                )
            seen[key] = str(run.folder)
            found.append(sample)
    return found


def _problems(task: str, arms: Mapping[_Arm, Sequence[Sample]]) -> dict[str, str]:
    """A task's problems and the hashes of their prompts."""
    prompts: dict[str, str] = {}
    for sample in (sample for arm, samples in arms.items() if arm.task == task for sample in samples):
        if prompts.setdefault(sample["problem"], sample["prompt_hash"]) != sample["prompt_hash"]:
            raise ResultsError(f"{task}/{sample['problem']} was asked with two prompts: pass the folder of one run")
    return dict(sorted(prompts.items()))


def _complete(arm: _Arm, samples: Sequence[Sample], problems: Mapping[str, str]) -> None:
    """Refuse an arm in which some problem lacks a chain that another one has."""
    chains: dict[str, set[tuple[int, int, int]]] = {problem: set() for problem in problems}
    for sample in samples:
        chains[sample["problem"]].add((sample["seed"], sample["chain"], sample["max_new_tokens"]))
    everything = set().union(*chains.values())
    finished = sum(each == everything for each in chains.values())
    if finished < len(chains):
        raise ResultsError(
            f"{finished} of {len(chains)} problems have every chain of {arm}: "
            "finish the run with the command that began it, or pass the folder of one run"
        )


def _one(what: str, samples: Sequence[Sample]) -> str:
    versions = sorted({str(sample["task_version"]) for sample in samples})
    if len(versions) > 1:
        raise ResultsError(f"the results hold several {what} ({', '.join(versions)}): pass the folder of one run")
    return versions[0]


def _about(arm: _Arm, samples: Sequence[Sample], infos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What may differ from other results of this arm without making them incomparable."""
    if any(sample.get("params") != samples[0].get("params") for sample in samples):
        raise ResultsError(f"the chains of {arm} differ in the method's parameters: pass the folder of one run")
    of = [infos.get(name, {}) for name in sorted({sample["run"] for sample in samples})]
    name = str(Arm(arm.method, arm.CR, True))
    return {
        "seeds": sorted({sample["seed"] for sample in samples}),
        "params": samples[0].get("params"),
        "engine": _few(sample["engine"] for sample in samples),
        "dtype": _few(sample.get("dtype") for sample in samples),
        "temperature": _few((info.get("config") or {}).get("temperature") for info in of),
        "top_p": _few((info.get("config") or {}).get("top_p") for info in of),
        "weights": _few((info.get("checkpoints") or {}).get(name) for info in of),
    }


def _few(values: Any) -> Any:
    """The one value there is, or all of them."""
    found = list({repr(value): value for value in values}.values())
    return found[0] if len(found) == 1 else sorted(found, key=repr)


def _cuts(part: Sequence[Cell], problems: Sequence[str], samples: Sequence[Sample]) -> tuple[CutRecord, ...]:
    by_length: dict[int, list[Cell]] = {}
    for cell in sorted(part, key=lambda cell: (cell.L, cell.W)):
        by_length.setdefault(cell.L, []).append(cell)
    cuts = []
    for length, group in by_length.items():
        first = group[0]
        order = _places(first, problems)
        costs = {
            axis: tuple(float(f"{value:.{_DIGITS}g}") for value in (first.costs[axis] / first.W)[order])
            for axis in AXES
        }
        accuracy = {}
        for cell in group:
            values = cell.accuracy[_places(cell, problems)]
            accuracy[cell.W] = tuple(round(float(value), _DECIMALS) for value in values)
        cuts.append(CutRecord(L=length, chains=_chains(samples, length), accuracy=accuracy, **costs))
    return tuple(cuts)


def _chains(samples: Sequence[Sample], length: int) -> tuple[int, ...]:
    """How many chains of each seed can be cut at L; the same for every problem of a complete arm."""
    chains = {
        (sample["seed"], sample["chain"])
        for sample in samples
        if sample["max_new_tokens"] == length
        or (sample["max_new_tokens"] > length and sample.get("length_invariant", True))
    }
    return tuple(sorted(Counter(seed for seed, _ in chains).values()))


def _places(cell: Cell, problems: Sequence[str]) -> list[int]:
    """Where the problems stand in a cell."""
    place = {problem: i for i, problem in enumerate(cell.problems)}
    if missing := [problem for problem in problems if problem not in place]:
        raise ResultsError(
            f"{cell.arm.task}/{missing[0]} has no chain of {cell.arm.method} that can be cut at L={cell.L}, as other "
            "problems have: pass the folder of one run"
        )
    return [place[problem] for problem in problems]
