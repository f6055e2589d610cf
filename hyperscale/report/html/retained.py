"""Tells what share of their prompts the methods keep, a panel for each context task and length, as the plot has it."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from hyperscale.methods.names import VANILLA
from hyperscale.report.plots.retained import name_and_context, place, select_named_points
from hyperscale.results.points import MeasuredPoint


def collect_shares(points: Sequence[MeasuredPoint], names: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """The panels of accuracy against the retained share; none where no prompt was evicted from, or nobody says.

    Args:
        points: All points of the page, in its order.
        names: What the page calls a frontier, by model and method.

    Returns:
        For each task and length ``task``, ``context`` in tokens, ``problems``, ``vote`` and ``lines``: ``name``,
        whether it is the ``full`` cache's, and ``points``, places in ``points`` from the smallest share on.
    """
    places = {id(point): i for i, point in enumerate(points)}
    panels = []
    for (task, context), part in groupby(sorted(select_named_points(points), key=place), name_and_context):
        lines: dict[str, dict[str, Any]] = {}
        chosen = list(part)
        for point in chosen:
            name = names[point.series.model, point.series.method]
            is_full = point.series.method.split(" ")[0] == VANILLA
            line = lines.setdefault(name, {"name": name, "full": is_full, "points": []})
            line["points"].append(places[id(point)])
        panels.append(
            {
                **{"task": task, "context": context, "problems": max(len(point.problems) for point in chosen)},
                "vote": ", ".join(sorted({point.vote for point in chosen})),
                "lines": list(lines.values()),
            }
        )
    return panels
