"""Pairs results with a baseline: refuses what cannot be compared, and notes what differs though it can."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hyperscale.errors import ResultsError
from hyperscale.gate.baseline import ALL_WEIGHTS, DIGITS, CutRecord, GateRecord, TaskRecord
from hyperscale.methods.arm import point_label
from hyperscale.results.manifest import differences

_SHOWN = 3  # missing points that an error names


class PointKey(NamedTuple):
    """Names a point of a model and task."""

    model: str
    task: str
    method: str
    CR: float
    L: int
    W: int
    kv_budget: int = 0

    @property
    def label(self) -> str:
        """The point written W-L-CR, as `MeasuredPoint.label`."""
        return point_label(self.W, self.L, self.CR, self.kv_budget)

    def __str__(self) -> str:
        return f"{self.label} of {self.method} on {self.task}"


@dataclass(frozen=True)
class MatchedRecords:
    """A baseline, and results that have every point of it.

    Attributes:
        tasks: The baseline's.
        old: Every point of the baseline, with the arm's cut that holds it.
        new: The same points of the results.
        notes: What differs, one line each.
    """

    tasks: dict[str, TaskRecord]
    old: dict[PointKey, CutRecord]
    new: dict[PointKey, CutRecord]
    notes: tuple[str, ...]


def match(baseline: GateRecord, results: GateRecord) -> MatchedRecords:
    """MatchedRecords every point of the baseline with the results' one.

    If both hold a single model, these are compared whatever they are called, so that a checkpoint in a folder can be
    held against a model known by name.

    Raises:
        ResultsError: The results lack a point of the baseline, it rests on another number of chains, or a task's
            version, vote, problems or prompts differ.
    """
    notes = []
    old_models, new_models = (list(dict.fromkeys(arm.model for arm in record.arms)) for record in (baseline, results))
    names = dict(zip(new_models, new_models, strict=True))  # a model of the results: its name in the baseline
    if len(new_models) == len(old_models) == 1 and new_models != old_models:
        names = dict(zip(new_models, old_models, strict=True))
        notes.append(f"the model was {old_models[0]}, now {new_models[0]}")
    for name in sorted(baseline.tasks.keys() & results.tasks.keys()):
        _check_task(name, baseline.tasks[name], results.tasks[name])
    # The cut that holds a point stands for it: accuracies by W, costs of a chain, both by problem.
    old, new = dict(_points(baseline)), dict(_points(results, names))
    _refuse_missing([point for point in old if point not in new], len(old))
    # An accuracy of more chains is less noisy and less skewed, and the swap test takes both sides for alike.
    for point, cut in old.items():
        if cut.chains != new[point].chains:
            raise ResultsError(
                f"{point} rests on {_format_chains(cut)} chains a problem in the baseline and "
                f"{_format_chains(new[point])} in the results, so their noise differs: run as many seeds and chains as "
                "the baseline has, or make a new one with --write-baseline"
            )
    if extra := len(new.keys() - old.keys()):
        notes.append(f"{extra} points of the results are not in the baseline and are not judged")
    notes += _copies(baseline, results, names)
    notes += _differences(baseline, results, names)
    return MatchedRecords(baseline.tasks, old, {point: new[point] for point in old}, tuple(notes))


def _differences(old: GateRecord, new: GateRecord, names: Mapping[str, str]) -> list[str]:
    """Settings that differ, each once, with the arms in which they do."""
    arms = {(arm.model, arm.task, arm.arm): arm for arm in old.arms}
    labels: dict[str, list[str]] = {}  # of each difference: the arms that have it
    for arm in new.arms:
        before = arms.get((names[arm.model], arm.task, arm.arm))
        for line in differences(*_comparable(before.about, arm.about)) if before else ():
            labels.setdefault(line, []).append(str(arm.arm))
    return [f"{', '.join(dict.fromkeys(arms_with))}: {line}" for line, arms_with in labels.items()]


def _comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two arms' settings without what only one of them can know, as only newer runs know all weights."""
    both = ALL_WEIGHTS in old and ALL_WEIGHTS in new
    # Where both know all weights, what knows their ends alone says nothing more.
    skipped = "weights" if both else ALL_WEIGHTS
    first, second = ({name: value for name, value in about.items() if name != skipped} for about in (old, new))
    return first, second


def _copies(old: GateRecord, new: GateRecord, names: Mapping[str, str]) -> list[str]:
    """Arms whose chains are the baseline's own, on some problems or on all of them."""
    arms = {(arm.model, arm.task, arm.arm): arm for arm in old.arms}
    labels: dict[str, list[str]] = {}
    for arm in new.arms:
        before = arms.get((names[arm.model], arm.task, arm.arm))
        if before is None or not before.chains or len(before.chains) != len(arm.chains):
            continue
        starts = range(0, len(arm.chains), DIGITS)
        same = sum(before.chains[i : i + DIGITS] == arm.chains[i : i + DIGITS] for i in starts)
        if same:
            how_many = "all" if same == len(starts) else f"{same} of {len(starts)}"
            labels.setdefault(how_many, []).append(f"{arm.arm} on {arm.task}")
    return [
        f"{', '.join(arms_with)}: on {how_many} problems the chains are the baseline's own, word for word (the same "
        "run, a copy of it, or the same seed again): they say nothing of noise"
        for how_many, arms_with in labels.items()
    ]


def _points(record: GateRecord, names: dict[str, str] | None = None) -> Iterator[tuple[PointKey, CutRecord]]:
    for arm in record.arms:
        model = names[arm.model] if names else arm.model
        for cut in arm.cuts:
            for width in cut.accuracy:
                yield PointKey(model, arm.task, arm.method, arm.CR, cut.L, width, arm.kv_budget), cut


def _format_chains(cut: CutRecord) -> str:
    return "+".join(map(str, cut.chains))


def _refuse_missing(missing: Sequence[PointKey], total: int) -> None:
    if missing:
        names = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise ResultsError(
            f"the results lack {len(missing)} of the baseline's {total} points ({names}): "
            "repeat the plan of its run (hyperscale run … --plan RUN; or plan both with --predict closed), or make a "
            "new baseline with --write-baseline"
        )


def _check_task(name: str, old: TaskRecord, new: TaskRecord) -> None:
    cure = "run the baseline's problems, or make a new baseline with --write-baseline"
    for field in ("version", "vote"):
        if getattr(old, field) != getattr(new, field):
            raise ResultsError(
                f"the {field} of {name} is {getattr(old, field)} in the baseline and {getattr(new, field)} in the "
                f"results, so their accuracies are of different things: {cure}"
            )
    missing, extra = old.problems.keys() - new.problems.keys(), new.problems.keys() - old.problems.keys()
    if missing or extra:
        raise ResultsError(
            f"{name} has other problems in the results ({len(new.problems)}) than in the baseline "
            f"({len(old.problems)}): {len(missing)} are missing, {len(extra)} are new, e.g. "
            f"{min(missing or extra)}; a comparison needs the same ones: {cure}"
        )
    if differing := [problem for problem, text in old.problems.items() if new.problems[problem] != text]:
        raise ResultsError(
            f"the prompts of {len(differing)} of {len(old.problems)} problems of {name} differ from the baseline's "
            f"(first: {differing[0]}): {cure}"
        )
