"""Bands around frontiers: how far one moves when problems are resampled and the maximum over points is taken anew.

They are bootstrap intervals of `hyperscale.bootstrap`, which says how far to trust them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyperscale.bootstrap import MIN_PROBLEMS, N_BOOT, Bootstrap, ends
from hyperscale.envelope import evaluate
from hyperscale.results.points import Cell

Floats = NDArray[np.float64]


def band(part: Sequence[Cell], axis: str, at: Floats, n_boot: int = N_BOOT, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % bootstrap band of one method's frontier, interpolated in log2 of cost.

    Args:
        part: Cells of one method on one task.
        axis: Cost axis.
        at: (m,) costs.
        n_boot: Number of resamples.
        seed: Of the resampling.

    Returns:
        Lower and upper ends, each (m,), in percent, neither falling with cost; NaN where fewer than half of the
        resamples have a frontier, and everywhere with fewer than `MIN_PROBLEMS` problems.
    """
    made = Bootstrap(part, n_boot, seed)
    (method,) = made.methods
    return band_of(made, method, axis, at)


def band_of(made: Bootstrap, method: str, axis: str, at: Floats) -> tuple[Floats, Floats]:
    """`band` of one of the bootstrap's methods, on frontiers that it keeps."""
    problems = made.problems(method)
    if len(problems) < MIN_PROBLEMS:
        return np.full(len(at), np.nan), np.full(len(at), np.nan)
    values = evaluate(made.envelope(method, axis, problems, log2=True), np.log2(at))
    low, high = (np.clip(end, 0, 100) for end in ends(values))
    # A frontier never falls, so neither end need be looser than what holds at other costs. It matters where two points
    # cost nearly the same: which of them comes first changes from resample to resample, and with it the line to them.
    order = np.argsort(at)
    low[order] = np.fmax.accumulate(low[order]) + 0 * low[order]  # NaN stays
    high[order] = np.fmin.accumulate(high[order][::-1])[::-1] + 0 * high[order]
    return low, high
