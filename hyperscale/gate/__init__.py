"""The gate: fails if a change made accuracies or margins fall, beyond tolerance and beyond noise.

Read in the order of the work:

1. `baseline`: what a baseline file holds (a `GateRecord`: accuracies and costs of each problem), and how it is read and
   written.
2. `from_runs`: makes such a record of run folders.
3. `matching`: pairs the records of baseline and results point by point, and refuses what cannot be compared.
4. `swap_test`: how large changes are by chance alone, and the simultaneous intervals that follow.
5. `comparison`: judges every accuracy and margin by that test and the tolerance.
6. `reports`: the outcome as a console table, as Markdown and as JUnit XML.

docs/gate.md explains the test to users.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.gate.baseline import GateRecord as GateRecord
    from hyperscale.gate.baseline import read_baseline as read_baseline
    from hyperscale.gate.baseline import write_baseline as write_baseline
    from hyperscale.gate.comparison import Comparison as Comparison
    from hyperscale.gate.comparison import ComparisonRow as ComparisonRow
    from hyperscale.gate.comparison import compare as compare
    from hyperscale.gate.from_runs import record_runs as record_runs

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baseline": ["GateRecord", "read_baseline", "write_baseline"],
        "comparison": ["Comparison", "ComparisonRow", "compare"],
        "from_runs": ["record_runs"],
    },
)
