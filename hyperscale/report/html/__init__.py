"""The report: one HTML file of a run or several, that opens without a network and shows what the numbers rest on.

`write` reads the runs and writes the file. `frontiers` computes its numbers with the functions that plots use,
`chains` the list of problems and chains (their texts packed by `text_packing` or laid beside the page by `text_folder`,
questions found by `questions`, wrong programs explained by `failures`), `shares` the problems that each point is right
on, `command` the command of a run, and `page` puts data, style and script together. The script in ``web/`` only shows
what it is given; `serve` hands the page to a browser on this machine.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.report.html.write import render_report as render_report
    from hyperscale.report.html.write import write_report as write_report

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "write": ["render_report", "write_report"],
    },
)
