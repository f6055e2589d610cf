"""The table of methods that benchmarks/method_table.py makes of points."""

import importlib.util

import pandas as pd
from repository import ROOT

_PATH = ROOT / "benchmarks" / "method_table.py"
_SPEC = importlib.util.spec_from_file_location("method_table", _PATH)
table = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(table)


def point(method, cr, length, task="t", **more):
    row = {"method": method, "CR": cr, "L": length, "W": 1, "task": task, "accuracy": 50.0, "accuracy_se": 2.0}
    return {**row, "realised_cr": cr - 0.25, "kv_reads": 12345.0 * cr, "peak_kv": 900.0, **more}


def test_one_row_a_method_and_ratio_at_the_longest_common_length():
    found = pd.DataFrame(
        [
            *(point("vanilla", 1, n) for n in (256, 512, 1024)),
            point("dms", 8, 256, accuracy=1.0),
            point("dms", 8, 512, accuracy=90.0),
            point("dms", 4, 512, accuracy=80.0, accuracy_se=float("nan")),
            point("dms", 4, 512, accuracy=99.0, W=2),
            point("vanilla", 1, 64, task="u"),
        ]
    )
    assert table.markdown(table.shown(found, None)).splitlines() == [
        "| method | nominal | t, L = 512 | CR | reads | peak | u, L = 64 | CR | reads | peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
        "| vanilla | 1 | 50.0 ± 2.0 | 0.8 | 12.3K | 900 | 50.0 ± 2.0 | 0.8 | 12.3K | 900 |",
        "| dms | 4 | 80.0 | 3.8 | 49.4K | 900 | · | · | · | · |",
        "| dms | 8 | 90.0 ± 2.0 | 7.8 | 98.8K | 900 | · | · | · | · |",
    ]
    assert "| 1.0 ± 2.0 | 7.8 |" in table.markdown(table.shown(found, 256))
