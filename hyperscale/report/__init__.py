"""What a person looks at: pictures and an offline page."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.report.html.write import FILE as FILE
    from hyperscale.report.html.write import TEXT_MIB as TEXT_MIB
    from hyperscale.report.html.write import render as render
    from hyperscale.report.html.write import write as write

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "html.write": ["FILE", "TEXT_MIB", "render", "write"],
    },
)
