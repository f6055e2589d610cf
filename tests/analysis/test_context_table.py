"""The tables of context tasks that benchmarks/context_table.py makes of points, and the order beside published rows."""

import importlib.util
from random import Random

import numpy as np
import pytest
from repository import ROOT
from run_folders import write_run
from synthetic_samples import sample

from hyperscale import results
from hyperscale.results.points import MeasuredPoint, SeriesKey

_SPEC = importlib.util.spec_from_file_location("context_table", ROOT / "benchmarks" / "context_table.py")
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)

PAPER = {"vanilla": 96.4, "dms": 96.8, "tova": 28.0, "h2o": 13.4}


def point(method, cr, right, task="niah_single@1024", *, n=100, W=1, L=64):
    """A point of which the first ``right`` problems are right."""
    accuracy = np.array([1.0] * right + [0.0] * (n - right))
    problems = tuple(f"p{i}" for i in range(n))
    series = SeriesKey("run", "m", method, "torch", task, cr)
    return MeasuredPoint(series, W, L, "majority", problems, accuracy, {}, cr, 1, 0.0, 0.0, retained=1 / cr)


def test_a_row_a_method_and_ratio_and_a_column_a_length():
    points = tables.choose(
        [
            point("tova", 4, 30, "niah_single@2048"),
            point("tova", 4, 50),
            point("tova", 4, 99, W=2),
            point("tova", 4, 99, L=32),
            point("vanilla", 1, 96),
            point("vanilla", 1, 9, "mini_aime"),
        ]
    )
    assert tables.table(points).startswith("niah_single, 100 problems each, accuracy in percent:")
    assert tables.table(points, shares=True).startswith("niah_single, 100 problems each, share of what is asked for in")
    assert tables.table(points).splitlines()[2:] == [
        "| method | CR | 1,024 tokens | 2,048 tokens | kept of the prompt (%), 1,024 · 2,048 |",
        "|---|---|---|---|---|",
        "| vanilla | 1 | 96 [90, 98] | · | 100 · · |",
        "| tova | 4 | 50 [40, 60] | 30 [22, 40] | 25 · 25 |",
    ]


def test_the_order_of_methods_is_held_against_a_publication():
    points = [
        point("vanilla", 1, 95),
        point("dms", 4, 60),
        point("tova", 4, 62),
        point("h2o", 4, 80),
        point("rkv", 4, 1),
    ]
    told = tables.compare(points, PAPER, "paper", "niah").splitlines()
    assert told[2:6] == [
        "| dms | 96.8 | 60 [50, 69] | 60 |",
        "| vanilla | 96.4 | 95 [89, 98] | 95 |",
        "| tova | 28 | 62 [52, 71] | 62 |",
        "| h2o | 13.4 | 80 [71, 87] | 80 |",
    ]
    assert told[6] == "| Kendall's tau-b | | -0.33 | -0.33 |"  # two of six pairs have the same order
    assert told[8].startswith("Of 6 pairs that paper, niah orders")
    assert told[10].startswith("- the same order: 2 – vanilla over tova (+33 [")
    assert "dms over vanilla" in told[11]
    assert told[11].startswith("- the opposite one: 3")
    assert told[12].startswith("- undecided here: 1 – dms over tova (-2 [")
    assert "rkv" not in "".join(told)  # the paper has it not


def test_lengths_count_together_problem_by_problem():
    points = [point(method, cr, right, f"vt@{length}") for length, shift in ((1024, 0), (2048, 20))
              for method, cr, right in (("vanilla", 1, 60 + shift), ("tova", 4, 40 + shift))]  # fmt: skip
    told = tables.compare(points, PAPER, "paper", "vt")
    assert "| vanilla | 96.4 | 60 [50, 69] | 80 [71, 87] | 70 |" in told
    assert "vanilla over tova (+20 [" in told  # of 100 problems, not of 200


def test_shares_count_what_an_answer_has_of_what_was_asked_for(tmp_path):
    params = {"vt@1024": {"hops": "2"}}  # three names
    (names,) = {tables.target(results.Run(tmp_path, {"config": {"task_params": params}}, ()), "vt@1024", "vt-0-7")}
    assert len(names) == 3
    answers = {"vanilla": ", ".join(names).lower(), "tova": f"{names[1]} and {names[0]}0", "h2o": "none of them"}
    lines = [
        sample(
            "vt-0-7", method=method, CR=cr, answer=answer, right=method == "vanilla", task="vt@1024", L=512, tokens=9
        )
        for (method, answer), cr in zip(answers.items(), (1.0, 4.0, 4.0), strict=True)
    ]
    (run,) = results.read(write_run(tmp_path / "run", lines, tasks=["vt@1024"], task_params=params))
    found = {
        shares: {p.series.method: float(p.accuracy[0]) for p in tables.choose(tables.read_points(run, shares=shares))}
        for shares in (False, True)
    }
    assert found[False] == {"vanilla": 1, "tova": 0, "h2o": 0}
    assert found[True] == {"vanilla": 1, "tova": pytest.approx(1 / 3), "h2o": 0}


def test_tau_is_that_of_scipy():
    stats, rng = pytest.importorskip("scipy.stats"), Random(0)
    names = "abcdefg"
    for _ in range(50):
        one, other = ({name: rng.randrange(5) for name in names} for _ in range(2))
        wanted = stats.kendalltau(list(one.values()), list(other.values())).statistic
        assert tables.tau(names, one, other) == pytest.approx(wanted, nan_ok=True)
