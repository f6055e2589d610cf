"""``hyperscale plot`` as a user meets it."""

import json
import re
import sys
import time

import pandas as pd
import pytest
from synthetic_samples import chains, write_samples

from hyperscale import results
from hyperscale.cli import main
from hyperscale.planning.plan_file import common_ceilings
from hyperscale.results import points
from hyperscale.results.points import COSTS


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hyperscale", "plot", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def write(folder, lines):
    folder.mkdir(parents=True)
    (folder / results.RUN_FILE).write_text(json.dumps({"schema": 2, "config": {}}))
    write_samples(folder / results.SAMPLES, lines)
    return folder


@pytest.fixture
def folder(tmp_path):
    lines = [
        line
        for method, cr in (("vanilla", 1), ("dms", 8), ("window", 4))
        for line in chains(method, cr, problems=12, width=2)
    ]
    return write(tmp_path / "results" / "r", lines).parent


@pytest.mark.e2e
def test_it_reads_and_computes_everything_once(run, folder, monkeypatch):
    calls = []
    for module, name in ((results, "read"), (points, "make_points")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, o=original, n=name, **k: (calls.append(n), o(*a, **k))[1])
    code, out, err = run("results", "--axis", "kv_reads,tokens", "--resamples", "100")
    assert (code, err) == (0, "")
    assert calls == ["read", "make_points"]
    assert "72 chains of 1 run" in out
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "accuracy-kv_reads.png",
        "accuracy-tokens.png",
    ]


EVERYTHING = ("--axis", "all", "--format", "csv", "--resamples", "100")


def test_margins_of_any_pair_on_every_axis(run, folder, tmp_path):
    code, out, _ = run("results", "--margins", "dms:vanilla,dms:window", "--out", "pictures", *EVERYTHING)
    assert code == 0
    table = pd.read_csv(tmp_path / "pictures" / "margins.csv")
    assert set(zip(table.a, table.b, strict=True)) == {("dms", "vanilla"), ("dms", "window")}
    assert set(table.axis) == set(COSTS)
    shown = out[out.index("Margins") :]
    assert "dms − window" in shown
    assert "peak_kv" in shown
    assert "peak_bytes" not in shown  # asked for by --axis only
    assert not (folder / "margins.csv").exists()


def test_the_paper_beside_a_run(run, tmp_path):
    lines = [
        line
        for method, cr in (("vanilla", 1), ("dms", 8))
        for line in chains(method, cr, problems=12, width=2, task="math500", model="qwen-r1-32b")
    ]
    write(tmp_path / "one", lines)
    code, out, _ = run("one", "--reference", "paper", "--axis", "peak_kv", "--resamples", "100")
    assert code == 0
    margins = out[out.index("Margins") :]
    assert next(line for line in margins.splitlines() if line.startswith("math500")).rstrip().endswith("+1.6")


def test_the_answer_stands_first_and_knows_the_budget_of_the_plan(run, folder):
    ceilings = {"mini_aime": 60_000.0}
    (folder / "r" / "points.csv").write_text("")
    (folder / "r" / "plan.json").write_text(json.dumps({"axis": "tokens", "ceilings": {"mini_aime": 900.0}}))
    _, out, _ = run("results", "--resamples", "100", "--format", "csv")
    assert {path.name for path in folder.glob("accuracy-*-frontier.csv")} == {  # the budget's axis, and kv_reads
        "accuracy-tokens-frontier.csv",
        "accuracy-kv_reads-frontier.csv",
    }
    lines = out.splitlines()
    assert lines[1:3] == ["Answer", "mini_aime, 12 problems, at most 900 tokens each"]
    assert lines[3].startswith("  The budget buys: vanilla (the full cache) ")
    (folder / "r" / "plan.json").write_text(json.dumps({"axis": "kv_reads", "ceilings": ceilings}))
    _, out, _ = run("results", "--resamples", "100", "--axis", "tokens", "--format", "csv")
    assert out.splitlines()[2:4][0] == "mini_aime, 12 problems"  # a budget of reads says nothing of tokens
    _, out, _ = run("results", "--resamples", "100", "--json", "--format", "csv")
    (answer,) = json.loads(out)["answers"]
    assert (answer["axis"], answer["ceiling"]) == ("kv_reads", 60_000)
    assert {match["method"] for match in answer["matches"]} == {"dms", "window"}
    assert answer["sentences"][0].startswith("The budget buys")


def test_budgets_that_differ_are_no_budget_of_all(tmp_path):
    def plan(name, **ceilings):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "plan.json").write_text(json.dumps({"axis": "kv_reads", "ceilings": ceilings}))
        return tmp_path / name

    first, same = plan("a", mini_aime=10.0, mini_lcb=None), plan("b", mini_aime=10.0)
    assert common_ceilings([first, same, tmp_path / "none"]) == ("kv_reads", {"mini_aime": 10.0})
    assert common_ceilings([first, plan("c", mini_aime=20.0)]) is None
    assert common_ceilings([tmp_path / "none"]) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--axis", "euros"), "unknown axis 'euros'; known axes: kv_reads, peak_kv"),
        (("--axis", "tokens,"), "--axis 'tokens,' has an empty name"),
        (("--margins", "dms"), "e.g. dms:vanilla,dms:window"),
        (("--margins", "dms:quest"), "no margin dms:quest: no task has chains of both"),
        (("--reference", "papers"), "no reference 'papers': known ones: paper"),
        (("--resamples", "3"), "--resamples"),
        (("--format", "png,pdf"), "--format 'pdf': choose of png, svg, csv"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(run, folder, options, text):
    code, _, err = run("results", *options)
    assert code == 2
    assert err.count("\n") == 1
    assert text in err
    assert [path.name for path in folder.iterdir()] == ["r"]


def test_a_run_without_chains_cannot_be_drawn(run, tmp_path):
    write(tmp_path / "empty", [])
    code, _, err = run("empty")
    assert (code, err) == (2, "error: empty holds no finished chain yet: nothing to draw\n")


def test_tables_cut_no_letter_off_where_names_are_long(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "kvpress:DecodingPress:ExpectedAttentionPress"
    lines = chains("vanilla", 1, problems=12, width=2) + chains(name, 8, problems=12, width=2)
    write(tmp_path / "one", lines)
    code, out, _ = run("one", "--resamples", "100", "--format", "csv")
    assert code == 0
    shown = out[out.index("Margins") :]
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    row = next(line for line in shown.splitlines() if line.startswith("mini_aime") and "kv_reads" in line)
    assert re.search(r" [+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]$", row.rstrip())
    place = row.index(name[:20])
    rest = shown[shown.index(row) :].splitlines()[1][place:].split()[0]  # the name goes on in the next line
    assert row[place:].split()[0] + rest == name


@pytest.mark.slow
def test_a_large_run_is_drawn_in_reasonable_time(run, tmp_path):
    """200 problems x 8 chains x 3 tasks x 4 methods, three CRs each but for vanilla, 4 lengths: 48,000 chains."""
    arms = [("vanilla", 1), *((method, cr) for method in ("dms", "window", "random") for cr in (2, 4, 8))]
    names = ("mini_aime", "mini_gpqa", "mini_lcb")
    lines = [line for task in names for arm in arms for line in chains(*arm, problems=200, task=task)]
    assert len(lines) == 48_000
    write(tmp_path / "large", lines)
    start = time.process_time()
    assert run("large", "--axis", "all", "--format", "png,svg,csv")[0] == 0
    assert time.process_time() - start < 60
    assert len(pd.read_csv(tmp_path / "large" / "margins.csv")) == 3 * 3 * len(COSTS)


def test_tasks_can_be_chosen(run, tmp_path):
    lines = [
        line
        for task in ("mini_aime", "niah_single@512", "niah_single@1024")
        for method, cr in (("vanilla", 1), ("dms", 8))
        for line in chains(method, cr, problems=12, width=2, task=task)
    ]
    write(tmp_path / "results" / "r", lines)
    code, out, err = run("results", "--resamples", "100", "--json", "--task", "niah_single")
    assert (code, err) == (0, "")
    assert {point["task"] for point in json.loads(out)["points"]} == {"niah_single@512", "niah_single@1024"}
    code, out, _ = run("results", "--resamples", "100", "--json", "--task", "mini_aime,niah_single@512")
    assert {point["task"] for point in json.loads(out)["points"]} == {"mini_aime", "niah_single@512"}
    code, _, err = run("results", "--task", "niah_double")
    assert code == 2
    assert "no points of the task 'niah_double': choose of those that are there, mini_aime," in err
