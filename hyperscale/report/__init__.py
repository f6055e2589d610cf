"""Shows results to people: ``plots`` draws pictures, ``html`` writes a page that opens offline.

Both show the same numbers: points, frontiers with bands and margins, as `hyperscale.analysis.curves.analyse` computes
them.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.report.html.write import FILE as FILE
    from hyperscale.report.html.write import TEXT_MIB as TEXT_MIB
    from hyperscale.report.html.write import render_report as render_report
    from hyperscale.report.html.write import write_report as write_report
    from hyperscale.report.plots.write import draw_analysis as draw_analysis

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "html.write": ["FILE", "TEXT_MIB", "render_report", "write_report"],
        "plots.write": ["draw_analysis"],
    },
)
