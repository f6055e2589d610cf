"""Pairing results with a baseline: refuses what cannot be compared, and notes what differs though it can."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import CutRecord, Record, TaskRecord
from hyperscale.results.manifest import differences

_SHOWN = 3


class Point(NamedTuple):
    """Where an accuracy was measured."""

    model: str
    task: str
    method: str
    CR: float
    L: int
    W: int

    def __str__(self) -> str:
        return f"{self.W}-{self.L}-{self.CR:g} of {self.method} on {self.task}"


@dataclass(frozen=True)
class Pair:
    """A baseline and results that have all that it has.

    Attributes:
        tasks: The baseline's.
        old: Every point of the baseline, with the arm's cut that holds it.
        new: The same points of the results.
        notes: What differs, one line each.
    """

    tasks: dict[str, TaskRecord]
    old: dict[Point, CutRecord]
    new: dict[Point, CutRecord]
    notes: tuple[str, ...]


def match(baseline: Record, results: Record) -> Pair:
    """Pair every point of the baseline with the results' one.

    If both hold a single model, these are compared whatever they are called, so that a checkpoint in a folder can be
    held against a model known by name.

    Raises:
        ResultsError: The results lack a point of the baseline, it rests on another number of chains, or a task's
            version, vote, problems or prompts differ.
    """
    notes = []
    theirs, ours = ({arm.model: None for arm in each.arms} for each in (results, baseline))
    names = dict(zip(theirs, theirs, strict=True))
    if len(theirs) == len(ours) == 1 and theirs != ours:
        names = dict(zip(theirs, ours, strict=True))
        notes.append(f"the model was {next(iter(ours))}, now {next(iter(theirs))}")
    for name in sorted(baseline.tasks.keys() & results.tasks.keys()):
        _same_task(name, baseline.tasks[name], results.tasks[name])
    old, new = dict(_points(baseline)), dict(_points(results, names))
    _refuse_missing([point for point in old if point not in new], len(old))
    for point, cut in old.items():
        if cut.chains != new[point].chains:
            raise ResultsError(
                f"{point} rests on {_chains(cut)} chains a problem in the baseline and {_chains(new[point])} in the "
                "results, so the two have not the same noise: run as many seeds and chains as the baseline has, or "
                "make a new one with --write-baseline"
            )
    if extra := len(new.keys() - old.keys()):
        notes.append(f"{extra} points of the results are not in the baseline and are not judged")
    notes += _differences(baseline, results, names)
    return Pair(baseline.tasks, old, {point: new[point] for point in old}, tuple(notes))


def _differences(old: Record, new: Record, names: Mapping[str, str]) -> list[str]:
    """Settings that differ, each once, with the arms in which they do."""
    arms = {(arm.model, arm.task, arm.method, arm.CR): arm for arm in old.arms}
    found: dict[str, list[str]] = {}
    for arm in new.arms:
        before = arms.get((names[arm.model], arm.task, arm.method, arm.CR))
        for line in differences(before.about, arm.about) if before else ():
            found.setdefault(line, []).append(arm.method if arm.CR == 1 else f"{arm.method} {arm.CR:g}×")
    return [f"{', '.join(dict.fromkeys(labels))}: {line}" for line, labels in found.items()]


def _points(record: Record, names: dict[str, str] | None = None) -> Iterator[tuple[Point, CutRecord]]:
    for arm in record.arms:
        model = names[arm.model] if names else arm.model
        for cut in arm.cuts:
            for width in cut.accuracy:
                yield Point(model, arm.task, arm.method, arm.CR, cut.L, width), cut


def _chains(cut: CutRecord) -> str:
    return "+".join(map(str, cut.chains))


def _refuse_missing(missing: Sequence[Point], of: int) -> None:
    if missing:
        named = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise ResultsError(
            f"the results lack {len(missing)} of the baseline's {of} points ({named}): "
            "run what the baseline was made of, or make a new baseline with --write-baseline"
        )


def _same_task(name: str, old: TaskRecord, new: TaskRecord) -> None:
    mend = "run the baseline's problems, or make a new baseline with --write-baseline"
    for what in ("version", "vote"):
        if getattr(old, what) != getattr(new, what):
            raise ResultsError(
                f"the {what} of {name} is {getattr(old, what)} in the baseline and {getattr(new, what)} in the "
                f"results, so their accuracies are of different things: {mend}"
            )
    lost, gained = old.problems.keys() - new.problems.keys(), new.problems.keys() - old.problems.keys()
    if lost or gained:
        raise ResultsError(
            f"{name} has other problems in the results ({len(new.problems)}) than in the baseline "
            f"({len(old.problems)}): {len(lost)} are missing, {len(gained)} are new, e.g. "
            f"{min(lost or gained)}; a comparison needs the same ones: {mend}"
        )
    if changed := [problem for problem, text in old.problems.items() if new.problems[problem] != text]:
        raise ResultsError(
            f"the prompts of {len(changed)} of {len(old.problems)} problems of {name} differ from the baseline's "
            f"(first: {changed[0]}): {mend}"
        )
