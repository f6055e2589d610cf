import csv

import pytest

from hyperscale import models, tasks
from hyperscale.analysis import published
from hyperscale.errors import ResultsError
from hyperscale.report.plots.styles import STYLES
from hyperscale.results.points import COSTS

MARGINS = "task,model,a,b,axis,margin,version,table\n"
ACCURACY = "task,model,method,W,L,CR,accuracy,version,table\n"


def write(folder, margins="", accuracy=""):
    folder.mkdir(exist_ok=True)
    (folder / "margins.csv").write_text(MARGINS + margins)
    (folder / "accuracy.csv").write_text(ACCURACY + accuracy)
    return str(folder)


def test_the_papers_names_are_this_projects_names():
    """A task, model or method written otherwise would silently stand beside nothing."""
    paper = published.load("paper")
    assert {m.task for m in paper.margins} <= set(tasks.available())
    assert {m.axis for m in paper.margins} - set(COSTS) == {"throughput"}
    assert {name for m in paper.margins for name in (m.a, m.b)} <= set(STYLES)
    assert {a.method for a in paper.accuracies} <= set(STYLES)
    known = {m.model for m in paper.margins} | {a.model for a in paper.accuracies if a.W}
    for name in known:
        assert models.find(name).name == name


def test_the_papers_values():
    paper = published.load("paper")
    sizes = ("qwen-r1-1.5b", "qwen-r1-7b", "qwen-r1-32b")
    assert paper.margin("gpqa_diamond", "dms", "vanilla", "peak_kv") == dict(zip(sizes, (4.9, 4.2, 8.0), strict=True))
    assert paper.margin("livecodebench", "dms", "quest", "kv_reads") == dict(zip(sizes, (4.9, 3.4, 5.6), strict=True))
    assert paper.margin("gpqa_diamond", "dms", "quest", "kv_reads") == {}  # not published
    of_lcb = {(a.method, a.CR): (a.W, a.L, a.accuracy) for a in paper.accuracy("livecodebench")}
    assert of_lcb["dms", 8.0] == (1, 16384, 33.4)
    assert {(a.method, a.CR): a.accuracy for a in paper.accuracy("gsm8k")} == {
        **{("vanilla", 1.0): 47.0, ("h2o", 4.0): 14.7, ("tova", 4.0): 20.2},
        **{("quest", 4.0): 39.9, ("dmc", 4.0): 3.6, ("dms", 4.0): 42.3},
    }


def test_every_margin_of_the_headline_table_is_there_once():
    paper = published.load("paper")
    headline = [m for m in paper.margins if m.b == "vanilla" and m.axis in COSTS]
    assert len(headline) == len({(m.task, m.model, m.axis) for m in headline}) == 2 * 4 * 3
    assert {m.version for m in headline} == {"v2"}


def test_a_later_version_takes_the_place_of_an_earlier_one(tmp_path):
    rows = "t,m,dms,vanilla,tokens,{},{},\n"
    folder = write(tmp_path / "mine", rows.format("1.5", "v1") + rows.format("2.5", "v2"))
    (only,) = published.load(folder).margins
    assert (only.value, only.version) == (2.5, "v2")
    assert published.load(folder).name == "mine"
    with (published.data_dir(published.FOLDER) / "paper" / "margins.csv").open() as file:
        old = [row for row in csv.DictReader(file) if row["version"] == "v1"]
    assert {(row["task"], row["margin"]) for row in old} >= {("aime24", "9.1")}  # kept in the file


@pytest.mark.parametrize(
    ("margins", "accuracy", "text"),
    [
        ("t,m,a,b,tokens,much,v1,\n", "", "margin 'much' is not a number"),
        ("t,m,a,b\n", "", "line 2 lacks axis, margin, version"),
        ("", "t,m,dms,1,8192,,33.0,v1,\n", "CR '' is not a number"),
        ("", "t,m,dms,one,8192,4,33.0,v1,\n", "W 'one' is not a number"),
    ],
)
def test_malformed_files_are_named(tmp_path, margins, accuracy, text):
    with pytest.raises(ResultsError, match=text):
        published.load(write(tmp_path / "mine", margins, accuracy))


def test_an_unknown_reference_is_an_error_that_names_the_known_ones(tmp_path):
    assert published.available() == ["paper"]
    with pytest.raises(ResultsError, match="no reference 'papers': known ones: paper; or pass a folder"):
        published.load("papers")
    (tmp_path / "margins.csv").write_bytes(b"\xff\xfe")
    (tmp_path / "accuracy.csv").write_text(ACCURACY)
    with pytest.raises(ResultsError, match="unreadable"):
        published.load(str(tmp_path))
