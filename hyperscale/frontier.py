"""Frontiers: the best accuracy reachable at or under each cost, and margins between them.

Definitions. Points are sorted by cost; a point is on the frontier if its accuracy exceeds that of every cheaper one.
Between consecutive frontier points the frontier is interpolated linearly: in cost, or in log2 of cost, as the reader
of the axis chooses. It begins at the cheapest point. Right of its last point it is constant, up to the most expensive
point that was measured. A method's frontier unites all its CRs.

Points that rest on fewer than 90 % of the problems that the method's other points have (an interrupted run, or a run
of a few problems beside a full one) are left out: they would compare few and easy problems with all of them.

A maximum over measured points is biased upwards, the more so the more points there are. The bootstrap of a margin
therefore resamples the problems and takes the maximum over points anew in every resample.
"""

from typing import TYPE_CHECKING

from hyperscale.envelope import envelope
from hyperscale.margins import COVERAGE, FRONTIER, Margin, margin
from hyperscale.results.points import Cell, cells, check_axis, points

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cell", "Margin", "cells", "frontier", "margin", "points"]


def frontier(points: "pd.DataFrame", axis: str) -> "pd.DataFrame":
    """The points on the frontier of each (task, model, method), by ascending cost.

    Args:
        points: Rows with the columns of ``points.csv``.
        axis: A cost axis: kv_reads, peak_kv, peak_bytes, tokens or seconds.

    Raises:
        ResultsError: Unknown axis.
    """
    import pandas as pd

    check_axis(axis)
    most = points.groupby(list(FRONTIER))["n_problems"].transform("max")
    points = points[points["n_problems"] >= COVERAGE * most]
    parts = []
    for _, group in points.groupby(list(FRONTIER), sort=False):
        e = envelope(group[axis].to_numpy(dtype=float), group["accuracy"].to_numpy(dtype=float))
        parts.append(group.iloc[e.order[e.kept]])
    return pd.concat(parts) if parts else points.iloc[:0]
