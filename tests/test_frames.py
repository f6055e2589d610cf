"""Results as frames: the numbers of the records behind them, over finished, unfinished, forced and empty runs."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from run_folders import write_run
from synthetic_samples import chains, forced_answer, sample

import hyperscale as hs
from hyperscale.results.points import COLUMNS

VANILLA = chains("vanilla", 1, problems=12, width=4)
DMS = chains("dms", 8, problems=12, width=4, skill=0.15)
PLANNED = {"vanilla": 48, "dms 8×": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    write_run(folder / "whole", VANILLA + DMS, planned=PLANNED)
    write_run(folder / "begun", VANILLA + DMS[:9], planned=PLANNED, points=False)
    write_run(folder / "empty", [], planned=PLANNED, points=False)
    return folder


def test_frames_have_the_numbers_of_the_records(folder):
    results = hs.load(folder / "whole")
    (run,) = results.runs
    assert repr(results) == f"<Results of 1 run in {folder / 'whole'}: 96 chains>"
    assert (results.finished, results.notes, results.axis) == (True, [], "kv_reads")
    assert tuple(results.points.columns) == COLUMNS
    stored = pd.read_csv(folder / "whole" / "points.csv")
    pd.testing.assert_frame_equal(results.points, stored, check_dtype=False)
    # A point is the mean of its problems.
    key = ["method", "W", "L"]
    means = results.problems.groupby(key)[["accuracy", "kv_reads", "peak_bytes"]].mean()
    points = results.points.set_index(key)[["accuracy", "kv_reads", "peak_bytes"]].sort_index()
    pd.testing.assert_frame_equal(means.sort_index(), points)
    assert list(results.chains["kv_reads"]) == [line.whole.kv_reads for line in run.samples]
    assert list(results.chains["correct"]) == [line.whole.correct for line in run.samples]
    assert len(results.cuts) == sum(len(line.cuts) for line in run.samples)
    last = results.cuts[results.cuts["L"] == results.cuts["max_L"]]
    assert list(last["kv_reads"]) == list(results.chains["kv_reads"])


def test_frontier_margins_and_comparison(folder):
    results = hs.load(folder / "whole")
    frontier = results.frontier("peak_kv")
    for _, rows in frontier.groupby("method"):
        assert rows["peak_kv"].is_monotonic_increasing
        assert np.all(np.diff(rows["accuracy"]) > 0)
    margins = results.margins("dms:vanilla", axes="kv_reads")
    assert margins[["a", "b", "axis"]].values.tolist() == [["dms", "vanilla", "kv_reads"]]
    assert margins["linear_low"][0] < margins["linear"][0] < margins["linear_high"][0]
    assert len(results.margins(axes=["kv_reads", "tokens"], resamples=100)) == 2
    compared = results.compare()
    assert set(compared["at"]) == {"size", "cost"}
    same = compared[(compared["at"] == "size") & (compared["W_b"] == 4)]
    np.testing.assert_allclose(same["accuracy_b"] - same["accuracy_a"], same["difference"])
    assert str(results).startswith("mini_aime, 12 problems, at most 200K kv_reads each\nThe budget buys: vanilla")
    assert results.plot().axes[0].get_title().startswith("mini_aime (12 problems")


def test_a_run_of_the_same_name_elsewhere_is_another_run(folder, tmp_path):
    write_run(tmp_path / "whole", VANILLA + DMS, planned=PLANNED)
    first, second = hs.load(folder / "whole"), hs.load(tmp_path / "whole")
    assert set(first.compare(second)["arm_a"]) == {"vanilla", "dms 8×"}
    assert set(first.compare(hs.load(folder / "whole"))["arm_a"]) == {"vanilla"}


def test_several_unfinished_and_empty_runs(folder):
    both = hs.load(folder)
    assert len(both.runs) == 3
    assert set(both.chains["run"]) == {"whole", "begun"}
    assert not both.finished
    assert [note.split(" is ")[0] for note in both.notes] == ["begun", "empty"]
    empty = hs.load(folder / "empty")
    assert str(empty).startswith("empty is unfinished, 0 of 96 chains")
    for frame in (empty.points, empty.problems, empty.chains, empty.cuts, empty.frontier(), empty.margins()):
        assert frame.empty
        assert len(frame.columns) > 10
    with pytest.raises(hs.errors.ResultsError, match="no finished chain"):
        empty.plot()
    with pytest.raises(hs.errors.ResultsError, match="nothing to compare"):
        empty.compare()
    with pytest.raises(hs.HyperscaleError, match="no folder"):
        hs.load(folder / "nowhere")
    for wrong in (both.frontier, both.answers, both.plot, lambda axis: both.margins(axes=axis)):
        with pytest.raises(hs.errors.ResultsError, match="unknown axis"):
            wrong("watts")


def test_forced_answers_stand_at_their_cuts(tmp_path):
    line = sample(answers=["2", None], tokens=512, L=512, forced={512: forced_answer(512, "1")})
    write_run(tmp_path / "forced", [line], points=False)
    cuts = hs.load(tmp_path / "forced").cuts
    recorded = [(cut.L, cut.answer, cut.forced and cut.forced.answer) for cut in line.cuts]
    found = cuts[["L", "answer", "forced_answer"]].astype(object)
    assert list(found.where(found.notna(), None).itertuples(index=False, name=None)) == recorded


def test_shares_of_heads(tmp_path):
    """Of a full cache of 50 + 300 - 1 entries, mean over the chains whose engine told."""
    told = [sample(chain=chain, method="dms", CR=4, kept=((349, 0), (kept, 35))) for chain, kept in enumerate((35, 70))]
    write_run(tmp_path / "run", [*told, sample(chain=2, method="dms", CR=4), sample()])
    kept = hs.load(tmp_path / "run").kept
    assert kept[["method", "CR", "layer", "head", "chains"]].values.tolist() == [
        ["dms", 4, layer, head, 2] for layer in (0, 1) for head in (0, 1)
    ]
    assert kept["kept"].tolist() == pytest.approx([100, 0, 100 * 52.5 / 349, 100 * 35 / 349])
    assert hs.load(tmp_path / "run").runs[0].samples[-1].kept == ()


def test_settings_have_the_names_and_forms_of_the_files():
    from hyperscale.run.config.load import make_config

    lists = make_config({"method": ["vanilla", "dms"], "cr": 8, "seed": (0, 1), "pin-prompt": True})
    assert lists == make_config(
        {"methods": "vanilla,dms", "crs": "8", "seeds": [0, 1], "pin_prompt": True, "limit": None}
    )
    base = make_config({"limit": 3, "method_param": {"window": {"recent": 32}}})
    over = make_config({"limit": 4, "method_param": {"window": {"pin_prompt": True}}}, base)
    assert (over.limit, over.params) == (4, {"window": {"recent": 32, "pin_prompt": True}})
    with pytest.raises(hs.errors.ConfigError, match="another name"):
        make_config({"method": "dms", "methods": "dms"})
    with pytest.raises(hs.errors.ConfigError, match="is no configuration"):
        hs.run({"model": "mini"})  # type: ignore[arg-type]


def test_importing_costs_nothing_and_the_package_is_called_whatever_was_imported_first():
    heavy = ("torch", "transformers", "pandas", "numpy", "matplotlib", "pydantic")
    for first in (
        "import hyperscale.run.observer",
        "import hyperscale.errors",
        "from hyperscale.run import RunObserver",
    ):
        program = (
            f"{first}; import sys, hyperscale as hs; assert callable(hs.run) and callable(hs.load); "
            f"print([name for name in {heavy} if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
        assert done.stdout.strip() == "[]"


def test_a_gpu_to_plan_for_is_named():
    with pytest.raises(hs.errors.ConfigError, match="gpu=80 is no text: give a name like h100, or a size like 48GiB"):
        hs.plan(model="mini", gpu=80)
