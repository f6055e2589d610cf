"""Reads and writes plan.json: the plan that a run's folder was started with, and with which it is finished.

Predictions change as more runs finish; a run that is resumed must not. Nothing else in the folder holds the plan.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hyperscale.errors import ResultsError
from hyperscale.methods.arm import Arm
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import AXES, CLOSED_FORM_AXES, Costs, TaskShape
from hyperscale.planning.measured_costs import EarlierRun
from hyperscale.planning.planner import Plan, PlannedPoint
from hyperscale.utils.files import write_atomic
from hyperscale.utils.validation import validate

PLAN_FILE = "plan.json"
_REMEDY = "restore it, or choose another folder with --out"
_OTHER_PROMPTS = 0.25  # by how much the base point of a repeated plan may differ, with other problems


class _Point(BaseModel):
    """A point of the plan with its costs, in one line."""

    model_config = ConfigDict(extra="forbid")

    task: str
    method: str
    CR: float
    W: int
    L: int
    source: str
    kv_budget: int = 0
    kv_reads: float
    peak_kv: float
    peak_bytes: float
    tokens: float
    seconds: float | None


class _EarlierRun(BaseModel):
    """A run that the plan's costs were predicted from, as `measured_costs.EarlierRun`."""

    model_config = ConfigDict(extra="forbid")

    folder: str
    run: str
    samples: str
    chains: int


class _PlanFile(BaseModel):
    """The contents of the file; a ceiling is null where there is none. Older files lack what has a default."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    axis: str
    ceilings: dict[str, float | None]
    dominated: int
    earlier_runs: list[_EarlierRun] = []
    engine: str = ""
    chains: dict[str, int] = {}
    points: list[_Point]


def save(
    plan: Plan,
    folder: Path,
    earlier_runs: Sequence[EarlierRun] = (),
    engine: str = "",
    chains: Mapping[str, int] | None = None,
) -> None:
    """Write a plan into a run's folder.

    Args:
        plan: The plan.
        folder: The folder.
        earlier_runs: What the costs of its points were predicted from: another plan is made as soon as these change.
        engine: The engine that was chosen, and why; for people.
        chains: How many chains the run generates, by the name of the arm.

    Raises:
        ResultsError: The disk is full or fails.
    """
    contents = {
        "schema": 1,
        "axis": plan.budget.axis,
        "ceilings": {task: None if math.isinf(value) else value for task, value in plan.ceilings.items()},
        "dominated": plan.n_dominated,
        "earlier_runs": [run._asdict() for run in earlier_runs],
        "engine": engine,
        "chains": dict(chains or {}),
        "points": [
            {"task": point.task, "method": point.arm.method, "CR": point.arm.CR, "W": point.W, "L": point.L}
            | ({"kv_budget": point.arm.kv_budget} if point.arm.kv_budget else {})
            | {"source": point.source}
            | {axis: getattr(point.costs, axis) for axis in AXES}
            for point in plan.points
        ],
    }
    try:
        write_atomic(folder / PLAN_FILE, json.dumps(contents, indent=1) + "\n")
    except OSError as error:
        raise ResultsError(
            f"cannot write {folder / PLAN_FILE} ({error.strerror}): make room and run the same command again"
        ) from None


def load(folder: Path, budget: Budget, arms: Iterable[Arm]) -> Plan | None:
    """The plan of a run's folder, or None if it has none yet; errors as for `load_file`."""
    path = folder / PLAN_FILE
    return load_file(path, budget, arms)[0] if path.exists() else None


def load_file(path: Path, budget: Budget, arms: Iterable[Arm], remedy: str = _REMEDY) -> tuple[Plan, list[EarlierRun]]:
    """The plan in a file, and the runs that its costs were predicted from.

    Args:
        path: The file, of a folder whose configuration has been found to be the same, or one that is to be repeated.
        budget: The run's budget.
        arms: The run's methods at their CRs.
        remedy: What to do about a plan of other methods, for the message.

    Raises:
        ResultsError: The file is unreadable or of another version or run.
    """
    file = _read_file(path)
    # The file names arms; whether a method is length-invariant is for the run to know.
    arms_by_name = {(arm.method, arm.CR, arm.kv_budget): arm for arm in arms}
    points = []
    for line in file.points:
        arm = arms_by_name.get((line.method, line.CR, line.kv_budget))
        if arm is None:
            other = Arm(line.method, line.CR, kv_budget=line.kv_budget)
            raise ResultsError(f"{path} is of another run: it plans {other}, which this one lacks: {remedy}")
        costs = Costs(line.kv_reads, line.peak_kv, line.peak_bytes, line.tokens, line.seconds)
        points.append(PlannedPoint(line.task, arm, line.W, line.L, costs, line.source))
    ceilings = {task: math.inf if value is None else value for task, value in file.ceilings.items()}
    plan = Plan(budget, ceilings, tuple(points), file.dominated)
    return plan, [EarlierRun(**run.model_dump()) for run in file.earlier_runs]


def _read_file(path: Path) -> _PlanFile:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is unreadable ({error}): {_REMEDY}") from None
    if isinstance(values, dict):
        values["schema_version"] = values.pop("schema", None)  # pydantic's models have a `schema` of their own
    return validate(_PlanFile, values, ResultsError, f"{path} is unreadable", _REMEDY)


def repeat(
    path: Path, budget: Budget, arms: Iterable[Arm], shapes: Sequence[TaskShape], entry_bytes: int
) -> tuple[Plan, list[EarlierRun]]:
    """The plan of another run, to be repeated exactly: the same points, predicted at the same costs.

    Args:
        path: The other run's plan.json, or its folder.
        budget: This run's budget.
        arms: This run's methods at their CRs.
        shapes: This run's tasks, with their lengths.
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads, for the ceilings of the budget.

    Raises:
        ResultsError: There is no such plan, or it is not of these methods, tasks, lengths and budget.
    """
    path = path / PLAN_FILE if path.is_dir() else path
    if not path.is_file():
        raise ResultsError(f"--plan {path}: there is no such file; pass the plan.json of a run, or its folder")
    arms = tuple(arms)
    plan, runs = load_file(path, budget, arms, "give --method, --cr and --method-param as that run had them")
    axis = _read_file(path).axis
    planned = {(point.arm, point.task) for point in plan.points}
    unplanned = [str(arm) for arm in arms if not any(arm == other for other, _ in planned)]
    for what, of_plan, of_run in (
        ("the axis", axis, budget.axis),
        ("the tasks", ", ".join(sorted(plan.ceilings)), ", ".join(sorted(shape.name for shape in shapes))),
    ):
        if of_plan != of_run:
            raise ResultsError(f"--plan {path} was made for {what} {of_plan}, and this run has {of_run}: give the same")
    if unplanned:
        raise ResultsError(f"--plan {path} has no point of {', '.join(unplanned)}: leave these out, or plan anew")
    for shape in shapes:
        _check_task(path, plan, shape, entry_bytes)
    return plan, runs


def _check_task(path: Path, plan: Plan, shape: TaskShape, entry_bytes: int) -> None:
    """Refuse to repeat a plan with other lengths or another ceiling of a task than those it was made with.

    Raises:
        ResultsError: It was made with others.
    """
    # A chain is cut at the run's lengths alone: points of others would be lost.
    if missing := sorted({point.L for point in plan.points if point.task == shape.name} - set(shape.lengths)):
        raise ResultsError(
            f"--plan {path} has points of {shape.name} at L={', '.join(map(str, missing))}, and this run has none: "
            "give --length as that run had it, or leave it out if that had none"
        )
    of_plan, budget = plan.ceilings[shape.name], plan.budget
    if budget.relative and budget.axis not in CLOSED_FORM_AXES and not budget.unlimited:
        return  # a multiple of seconds, which only the pilot knew
    of_run = budget.ceiling(shape, entry_bytes)
    # Prompts of other problems make other base points.
    allowed = 1 + _OTHER_PROMPTS if budget.relative else 1 + 1e-9
    if of_plan != of_run and not max(of_plan, of_run) <= min(of_plan, of_run) * allowed:
        raise ResultsError(
            f"--plan {path} was made for {_describe(of_plan)} in {budget.axis} on {shape.name}, and the budget "
            f"{budget.text} is {_describe(of_run)}: give --budget as that run had it"
        )


def _describe(ceiling: float) -> str:
    return "no ceiling" if math.isinf(ceiling) else f"{ceiling:,.6g}"


def planned_chains(folder: Path) -> dict[str, int] | None:
    """How many chains a folder's plan asks for, by the name of the arm; None where it does not say."""
    chains = _read_leniently(folder).get("chains")
    return chains if isinstance(chains, dict) and chains else None


def common_ceilings(folders: Iterable[Path]) -> tuple[str, dict[str, float]] | None:
    """The budget that runs have in common: its axis, and the ceiling of each task; None where budgets differ.

    Folders without a plan that can be read, of older versions, say nothing. A task without a ceiling is left out.
    """
    axes: set[str] = set()
    ceilings: dict[str, float | None] = {}
    for values in map(_read_leniently, folders):
        axis, of_folder = values.get("axis"), values.get("ceilings")
        if not isinstance(axis, str) or not isinstance(of_folder, dict):
            continue
        axes.add(axis)
        if any(ceilings.get(task, ceiling) != ceiling for task, ceiling in of_folder.items()):
            return None
        ceilings |= of_folder
    if len(axes) != 1:
        return None
    return axes.pop(), {task: float(ceiling) for task, ceiling in ceilings.items() if ceiling is not None}


def _read_leniently(folder: Path) -> dict[str, Any]:
    """What a folder's plan holds; nothing if it cannot be read: that is not the reader's concern."""
    try:
        values = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
