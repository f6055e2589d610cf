"""Reads and writes baselines: accuracies and costs of every problem, small enough to keep in git.

Accuracies are stored as they were found, not the answers they come from: a gate that votes or grades the old answers
with today's code would not notice that the code broke.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hyperscale.errors import ResultsError
from hyperscale.methods.arm import Arm
from hyperscale.utils.files import write_atomic
from hyperscale.utils.row_files import make_object
from hyperscale.utils.validation import validate

FORMAT: Literal[1] = 1
AXES = ("kv_reads", "peak_kv")
ALL_WEIGHTS = "all_weights"  # in `ArmRecord.about`; older baselines lack it
DIGITS = 8  # of a problem in `ArmRecord.chains`

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Cost = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]  # no overflow in what is computed of it
Positive = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskRecord(_Frozen):
    """A task and its problems.

    Attributes:
        version: Of the task.
        vote: "majority" or "pass".
        problems: Problem to the hash of its prompt, sorted; all values by problem below are in this order.
    """

    version: str
    vote: str
    problems: Annotated[dict[str, str], Field(min_length=1)]


class CutRecord(_Frozen):
    """An arm's chains cut at one L.

    Attributes:
        L: Most new tokens of a chain.
        chains: Of each problem and seed, one number a seed.
        kv_reads: By problem: of a chain, mean over chains and seeds. W chains cost W times as much.
        peak_kv: Likewise.
        accuracy: W to, by problem, the expected verdict of W chains, in [0, 1].
    """

    L: Positive
    chains: Annotated[tuple[Positive, ...], Field(min_length=1)]
    kv_reads: tuple[Cost, ...]
    peak_kv: tuple[Cost, ...]
    accuracy: Annotated[dict[Positive, tuple[Share, ...]], Field(min_length=1)]


class ArmRecord(_Frozen):
    """A method at a CR on a task.

    Attributes:
        model: Model.
        task: Task, one of the record's.
        method: Method.
        CR: See `Arm`.
        about: Settings that may differ from those of other results, which is then said: seeds, parameters of the
            method, sampling, engine, fingerprints of the weights.
        cuts: By ascending L.
        kv_budget: See `Arm`.
        chains: Eight hexadecimal digits for each problem, of what its chains say whatever their seed: the same chains
            again are noted. Empty in older files.
    """

    model: str
    task: str
    method: str
    CR: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    about: dict[str, Any]
    cuts: Annotated[tuple[CutRecord, ...], Field(min_length=1)]
    kv_budget: Annotated[int, Field(ge=0)] = 0
    chains: str = ""

    @property
    def arm(self) -> Arm:
        """The method at its compression."""
        return Arm(self.method, self.CR, kv_budget=self.kv_budget)


class GateRecord(_Frozen):
    """Results, by problem: what a baseline file holds.

    Attributes:
        format: Version of the file's format.
        hyperscale: Version that made it.
        tasks: By name.
        arms: Every (model, task, method, CR).
    """

    format: Literal[1]
    hyperscale: str
    tasks: dict[str, TaskRecord]
    arms: Annotated[tuple[ArmRecord, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        for name, task in self.tasks.items():
            if list(task.problems) != sorted(task.problems):
                raise ValueError(f"the problems of {name} are not sorted")
        keys = set()
        for arm in self.arms:
            if arm.task not in self.tasks:
                raise ValueError(f"the task {arm.task} is not described")
            n = len(self.tasks[arm.task].problems)
            for cut in arm.cuts:
                key = (arm.model, arm.task, arm.arm, cut.L)
                if key in keys:
                    raise ValueError(f"{arm.arm} on {arm.task} at L={cut.L} occurs twice")
                keys.add(key)
                if any(len(values) != n for values in (cut.kv_reads, cut.peak_kv, *cut.accuracy.values())):
                    place = f"{arm.arm} on {arm.task} at L={cut.L}"
                    raise ValueError(f"{place} does not have a value for each of {n} problems")
        return self


def read_baseline(path: Path) -> GateRecord:
    """Read a baseline.

    Raises:
        ResultsError: The file is missing, is no baseline, or has another format.
    """
    cure = "make it with `hyperscale gate RESULTS --write-baseline FILE`"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot read the baseline {path} ({error.strerror}): {cure}") from None
    except UnicodeDecodeError:
        raise ResultsError(f"{path} is not a baseline (not UTF-8 text): restore it, or {cure}") from None
    try:
        data = json.loads(text, object_pairs_hook=make_object)
        if isinstance(data, dict) and "format" in data and data["format"] != FORMAT:
            raise ResultsError(
                f"the baseline {path} has format {data['format']!r}, this version reads {FORMAT}: {cure} again"
            )
        return validate(GateRecord, data, ResultsError, f"{path} is not a baseline", f"restore it, or {cure}")
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is not a baseline ({error}): restore it, or {cure}") from None


def write_baseline(record: GateRecord, path: Path) -> None:
    """Write a baseline, a task or a cut on a line of its own, so that changes read well in git.

    Raises:
        ResultsError: The file cannot be written.
    """
    # Written by hand: json.dumps can indent every level or none, and a line a number would make git's diffs useless.
    data = record.model_dump(mode="json")
    tasks = ",\n".join(f"{_json(name)}:{_json(task)}" for name, task in data["tasks"].items())
    arms = []
    for arm in data["arms"]:
        cuts = ",\n".join(_json(_short(cut)) for cut in arm.pop("cuts"))
        arms.append(f'{_json(arm)[:-1]},"cuts":[\n{cuts}]}}')
    text = (
        f'{{"format":{FORMAT},"hyperscale":{_json(record.hyperscale)},\n"tasks":{{\n{tasks}}},\n"arms":[\n'
        + ",\n".join(arms)
        + "]}\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise ResultsError(f"cannot write the baseline {path} ({error.strerror}): choose another path") from None


def _short(cut: dict[str, Any]) -> dict[str, Any]:
    """A cut with whole numbers without ``.0``: most accuracies are 0 or 1, and a baseline lies in git."""
    numbers = {name: [_whole(value) for value in cut[name]] for name in AXES}
    accuracy = {width: [_whole(value) for value in values] for width, values in cut["accuracy"].items()}
    return {**cut, **numbers, "accuracy": accuracy}


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
