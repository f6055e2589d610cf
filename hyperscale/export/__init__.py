"""Writes results in the formats of other tools: lm-eval's files, logs of inspect_ai, TensorBoard, Weights & Biases.

`write.export_runs` chooses; one file a format. All of them show the numbers that `hyperscale.results.points` computes.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.export.write import FORMATS as FORMATS
    from hyperscale.export.write import export_runs as export_runs

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"write": ["FORMATS", "export_runs"]})
