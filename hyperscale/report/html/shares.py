"""Tells, of every point, on which problems it is right: what the page compares two points by."""

from collections.abc import Mapping, Sequence
from typing import Any

from hyperscale.methods.arm import Arm
from hyperscale.results.points import MeasuredPoint

RunArm = tuple[str, Arm, str]  # model, arm, run


def collect_shares(
    points: Sequence[MeasuredPoint], arms: Mapping[RunArm, int], problems: Sequence[Mapping[str, Any]]
) -> list[list[Any]]:
    """Each point's arm and shares.

    Args:
        points: In the page's order, with the names that their series have in the runs.
        arms: The arms' places on the page.
        problems: The page's problems, in its order.

    Returns:
        One a point: its arm's place, or None where it has none, then, for each of the task's problems in the page's
        order, the expected verdict of W chains in thousandths; None where it has no such problem.
    """
    places = {(model, arm.method, arm.CR, arm.kv_budget, run): i for (model, arm, run), i in arms.items()}
    ids: dict[str, list[str]] = {}
    for problem in problems:
        ids.setdefault(problem["task"], []).append(problem["id"])
    rows: list[list[Any]] = []
    for point in points:
        series = point.series
        share = dict(zip(point.problems, point.accuracy, strict=True))
        place = places.get((series.model, series.method, series.CR, series.kv_budget, series.run))
        thousandths = [round(1000 * float(share[name])) if name in share else None for name in ids[series.task]]
        rows.append([place, thousandths])
    return rows
