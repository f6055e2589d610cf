"""plan.json: the plan a run's folder was started with, which is the one it is finished with.

Predictions change as more runs finish; a run that is resumed must not. Derived from nothing else, so it is kept.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hyperscale.errors import ResultsError
from hyperscale.planning.arms import Arm
from hyperscale.planning.budget import AXES, Budget, Costs
from hyperscale.planning.planner import Plan, Point
from hyperscale.utils.files import write_atomic

_SCHEMA = 1


def save(plan: Plan, folder: Path) -> None:
    """Write a plan into a run's folder.

    Raises:
        ResultsError: The disk is full or fails.
    """
    contents = {
        "schema": _SCHEMA,
        "axis": plan.budget.axis,
        "ceilings": {task: None if math.isinf(value) else value for task, value in plan.ceilings.items()},
        "dominated": plan.dominated,
        "points": [_line(point) for point in plan.points],
    }
    try:
        write_atomic(folder / FILE, json.dumps(contents, indent=1) + "\n")
    except OSError as error:
        raise ResultsError(
            f"cannot write {folder / FILE} ({error.strerror}): make room and run the same command again"
        ) from None


def load(folder: Path, budget: Budget, arms: Iterable[Arm]) -> Plan | None:
    """The plan of a run's folder, or None if it has none yet.

    Args:
        folder: A folder whose configuration has been found to be the same.
        budget: The run's budget.
        arms: The run's methods at their CRs.

    Raises:
        ResultsError: The file is unreadable or of another version or run.
    """
    path = folder / FILE
    if not path.exists():
        return None
    known = {(arm.method, arm.CR): arm for arm in arms}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != _SCHEMA:
            raise ValueError(f"schema {raw['schema']!r}")
        dominated = int(raw["dominated"])
        ceilings = {str(task): math.inf if v is None else float(v) for task, v in raw["ceilings"].items()}
        points = tuple(
            Point(
                str(line["task"]),
                known[line["method"], float(line["CR"])],
                int(line["W"]),
                int(line["L"]),
                Costs(**{axis: line[axis] for axis in AXES}),
                str(line["source"]),
            )
            for line in raw["points"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path} is unreadable ({error!r}): restore it, or choose another folder with --out"
        ) from None
    return Plan(budget, ceilings, points, dominated)


def _line(point: Point) -> dict[str, Any]:
    name = {"task": point.task, "method": point.arm.method, "CR": point.arm.CR, "W": point.W, "L": point.L}
    return {**name, "source": point.source, **{axis: getattr(point.costs, axis) for axis in AXES}}


FILE = "plan.json"
