"""The gate: has a change made accuracies or margins fall, beyond tolerance and beyond noise?

A baseline (`records`) keeps what earlier results (`recording`) say of each problem. Newer results are paired with it
problem by problem (`matching`), compared by a test that bounds the false alarms of the whole comparison
(`swaps`, `comparison`), and reported (`reports`).
"""

from hyperscale.gate.baseline import Record, read, write
from hyperscale.gate.comparison import Comparison, Row, compare
from hyperscale.gate.from_runs import record

__all__ = ["Comparison", "Record", "Row", "compare", "read", "record", "write"]
