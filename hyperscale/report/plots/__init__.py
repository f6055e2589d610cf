"""Pictures of frontiers, by matplotlib: accuracy against cost, with bands.

`write` writes the files of an analysis, `figure` draws one of them, `label_placement` finds room for W-L-CR beside the
points, `styles` gives each method its colour and marker (the report uses the same).
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.report.plots.figure import draw_figure as draw_figure
    from hyperscale.report.plots.write import draw_analysis as draw_analysis

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "figure": ["draw_figure"],
        "write": ["draw_analysis"],
    },
)
