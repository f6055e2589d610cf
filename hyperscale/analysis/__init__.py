"""Analysis: from measured points to frontiers of accuracy against cost, and the margins between them.

The way of the numbers:

1. `hyperscale.results.points` makes points of the stored chains: one (task, model, method, W, L, CR) each, with the
   accuracy and the costs of every problem.
2. `frontier` finds the best accuracy at or under each cost, interpolates it, and integrates the gap of two frontiers.
3. `bootstrap` says where intervals come from: it resamples the problems, makes points and frontiers anew in every
   resample, and turns what the resamples give into 95 % intervals. Its docstring says which interval, why no other,
   and how far to trust it; ``python benchmarks/interval_coverage.py`` measures that.
4. `margins` is the area between two frontiers over their common costs, with the bootstrap's interval; its docstring
   has the definition.
5. `differences` compares two points problem by problem; with it, `answers` finds what a budget buys and what equals the
   full cache for less, which `sentences` says in words.
6. `curves` computes all of that once for plots and reports: answers, points, frontiers with bands, margins.

`published` reads published margins and accuracies to show beside a run's.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.analysis.bootstrap import Bootstrap as Bootstrap
    from hyperscale.analysis.bootstrap import make_bootstraps as make_bootstraps
    from hyperscale.analysis.curves import Analysis as Analysis
    from hyperscale.analysis.curves import Curve as Curve
    from hyperscale.analysis.curves import analyse as analyse
    from hyperscale.analysis.frontier import frontier_points as frontier_points
    from hyperscale.analysis.margins import Margin as Margin
    from hyperscale.analysis.margins import compute_margin as compute_margin
    from hyperscale.analysis.margins import compute_margins as compute_margins

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bootstrap": ["Bootstrap", "make_bootstraps"],
        "curves": ["Analysis", "Curve", "analyse"],
        "frontier": ["frontier_points"],
        "margins": ["Margin", "compute_margin", "compute_margins"],
    },
)
