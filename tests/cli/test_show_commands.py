"""``hyperscale show``, ``runs`` and ``compare`` as a user meets them: finished and unfinished runs, at 80 columns."""

import json
import os
from dataclasses import replace

import pytest
from commandline import caller
from run_folders import write_run as write
from synthetic_samples import chains

from hyperscale import results
from hyperscale.executors import faults
from hyperscale.executors.faults import Fault, append_faults


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    return caller(monkeypatch, capsys, tmp_path)


VANILLA = chains("vanilla", 1, problems=12, width=4)
DMS = chains("dms", 8, problems=12, width=4, skill=0.15)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "results" / "whole", VANILLA + DMS, planned={"vanilla": 48, "dms 8×": 48}, mtime=1e9)
    brief = DMS[:9]
    write(
        tmp_path / "results" / "begun", VANILLA + brief, planned={"vanilla": 48, "dms 8×": 48}, points=False, mtime=2e9
    )
    return tmp_path / "results"


def methods_shown(out):
    """Methods of the rows of a table of points, in their order."""
    return list(dict.fromkeys(line.split()[1] for line in out.splitlines() if line.startswith("mini_aime  ")))


def test_show_of_a_finished_run(call, folder):
    code, out, err = call("show", "results/whole")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["whole", "  mini · vanilla, dms at 8× · mini_aime · budget 2x · 96 chains"]
    assert lines[2:4] == ["Answer", "mini_aime, 12 problems, at most 200K kv_reads each"]
    assert "Frontiers by kv_reads (--all shows every point)" in out
    assert "Intervals of a best count that it was chosen among many points" in " ".join(out.split())
    assert "unfinished" not in out
    assert methods_shown(out) == ["vanilla", "dms"]  # as in the report, not by name
    (run,) = results.read(folder / "whole")
    code, out, _ = call("show", "results/whole", "--all")
    assert f"All {len(run.points())} points" in out
    assert methods_shown(out) == ["vanilla", "dms"]
    rows = [line for line in out.splitlines() if line.startswith("mini_aime  ")]
    assert len(rows) == len(run.points())
    assert max(len(line) for line in out.splitlines()) <= 80


def test_show_of_an_unfinished_run_says_how_far_it_is(call, folder):
    _, out, _ = call("show", "results/begun")
    assert "unfinished, 57 of 96 chains" in out
    assert [line.split() for line in out.splitlines() if line.startswith(("vanilla  ", "dms 8×  "))][:2] == [
        ["vanilla", "48", "48"],
        ["dms", "8×", "9", "48"],
    ]
    assert "The command that started it resumes it." in out
    assert "begun is unfinished, 57 of 96 chains: quick chains finish first" in out
    assert not (folder / "begun" / results.POINTS).exists()  # it only reads
    values = json.loads(call("show", "results/begun", "--json")[1])
    (run,) = values["runs"]
    assert (run["finished"], run["chains"], run["planned"]) == (False, 57, 96)
    assert run["arms"][1] == {"name": "dms 8×", "done": 9, "planned": 48, "given_up": 0}
    assert values["answers"][0]["task"] == "mini_aime"
    assert len(values["points"]) > 10


def test_the_asked_cost_has_a_column_however_narrow_the_terminal_is(call, folder, monkeypatch):
    for width in (80, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        for more in ((), ("--all",)):
            out = call("show", "results/whole", "--axis", "seconds", *more)[1]
            table = out[out.index("Frontiers by seconds" if not more else "All ") :].splitlines()
            assert any(line.rstrip().endswith("seconds") for line in table)
            rows = [line for line in table if "-2K-" in line]
            assert rows
            assert all(row.split("-2K-")[0][-1] == row.split()[-1] for row in rows)  # W chains take W seconds
            assert max(map(len, table)) <= width


def test_rows_of_several_models_and_runs_are_told_apart(call, tmp_path):
    groups = {"both": {"tasks": ["mini_aime", "mini_lcb"], "weight_by_size": True}}
    for run, model in (("first", "small"), ("second", "small"), ("third", "large")):
        lines = [
            line
            for task in groups["both"]["tasks"]
            for line in chains("vanilla", 1, problems=3, width=1, task=task, model=model)
        ]
        made = write(tmp_path / "results" / run, lines)
        info = json.loads((made / results.RUN_FILE).read_text())
        (made / results.RUN_FILE).write_text(json.dumps(info | {"task_groups": groups}))
    out = call("show", "results")[1]
    frontiers, means = out.split("Frontiers by")[1].split("Means of groups")
    rows = [line.split()[:3] for line in frontiers.splitlines() if " vanilla " in line]
    assert {(model, method) for model, _, method in rows} == {("small", "vanilla"), ("large", "vanilla")}
    rows = [line.split()[:4] for line in means.splitlines() if " vanilla " in line]
    assert {tuple(row) for row in rows} == {
        ("small", "first", "both", "vanilla"),
        ("small", "second", "both", "vanilla"),
        ("large", "third", "both", "vanilla"),
    }
    every = [line.split()[:4] for line in call("show", "results", "--all")[1].splitlines() if " vanilla " in line]
    assert ["small", "second", "mini_lcb", "vanilla"] in every
    # A single run has neither column.
    assert not {"model", "run"} & set(call("show", "results/first")[1].split("Frontiers by")[1].split())


def test_methods_over_caches_of_several_types_have_frontiers_of_their_own(call, tmp_path):
    for kv_dtype in ("float32", "int8"):
        lines = chains("vanilla", 1, problems=12, width=2, kv_dtype=kv_dtype)
        write(tmp_path / "results" / kv_dtype, lines)
    for more in ((), ("--all",)):
        out = call("show", "results", *more)[1]
        assert any("vanilla int8  1-2K-1" in line for line in out.splitlines())
        assert any("vanilla       1-2K-1" in line for line in out.splitlines())


def test_runs_lists_the_newest_first_with_the_best_accuracy(call, folder):
    (folder / "broken").mkdir()
    (folder / "broken" / results.RUN_FILE).write_text("{")
    os.utime(folder / "broken" / results.RUN_FILE, (5e8, 5e8))
    code, out, err = call("runs")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == ["begun", "whole", "broken"]
    begun, whole, broken = (json.loads(line) for line in call("runs", "--json")[1].splitlines())
    assert (begun["finished"], begun["best"]) == (False, [])
    assert whole["finished"]
    (run,) = results.read(folder / "whole")
    best = max(run.points(), key=lambda point: (point.accuracy.mean(), -point.costs["kv_reads"].mean()))
    assert whole["best"] == [
        {"task": "mini_aime", "method": best.series.method, "accuracy": pytest.approx(100 * best.accuracy.mean())}
        | {"point": best.label, "problems": 12}
    ]
    assert f"best: mini_aime {100 * best.accuracy.mean():.1f} % of 12 (" in " ".join(out.split())
    assert "unreadable" in broken["problem"]
    assert "unfinished, 57 of 96 chains · no points yet" in " ".join(out.split())
    assert call("runs", "nowhere")[0] == 2


def test_a_run_that_gave_problems_up_is_finished_in_every_list(call, folder):
    lost = Fault("a device failed", chains=2, problem="p0", arm="dms 8×", task="mini_aime")
    engine = Fault("a device failed", chains=9)  # whose chains went back to the queue
    append_faults(folder / "begun", [engine, lost])
    for given_up, finished in ((2, False), (39, True)):
        append_faults(folder / "begun", [replace(lost, chains=given_up - 2)])
        assert json.loads(call("runs", "--json")[1].splitlines()[0])["finished"] == finished
        assert json.loads(call("show", "results/begun", "--json")[1])["runs"][0]["finished"] == finished
    assert "budget 2x · 57 chains · no points yet" in " ".join(call("runs")[1].split())
    (folder / "begun" / faults.FILE).write_text("{\n")
    assert "is corrupt" in json.loads(call("runs", "--json")[1].splitlines()[0])["problem"]


@pytest.mark.parametrize(
    ("methods", "told"),
    [(["vanilla", "tova"], "vanilla at 8×, tova at 64, 128 tokens"), (["tova"], "tova at 64, 128 tokens")],
)
def test_budgets_in_tokens_stand_in_place_of_ratios(call, folder, methods, told):
    info = json.loads((folder / "whole" / results.RUN_FILE).read_text())
    info["config"] |= {"methods": methods, "params": {"tova": {"budget": [64, 128]}}}
    (folder / "whole" / results.RUN_FILE).write_text(json.dumps(info))
    assert f"mini · {told} · budget 2x" in " ".join(call("runs")[1].split())
    assert json.loads(call("runs", "--json")[1].splitlines()[-1])["methods"] == told


def test_compare_two_methods_of_a_run_and_two_runs(call, folder, tmp_path):
    code, out, err = call("compare", "results/whole", "results/whole")
    assert (code, err) == (0, "")
    assert out.startswith("A: whole\nB: whole\nAt equal W and L")
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out
    assert "on the 12 problems of both" in out
    narrow = out.count("dms 8×  vanilla")
    assert call("compare", "results/whole", "results/whole", "--all")[1].count("dms 8×  vanilla") > narrow
    # Another run of the same methods, of fewer problems: each method against itself.
    write(tmp_path / "results" / "few", [line for line in VANILLA + DMS if int(line.problem[1:]) < 6])
    _, out, _ = call("compare", "results/whole", "results/few")
    assert "The runs have others besides" in out
    assert "No interval with fewer than 10 problems" in out
    values = json.loads(call("compare", "results/whole", "results/few", "--json", "--pair", "dms:vanilla")[1])
    (comparison,) = values["comparisons"]
    assert (comparison["b"]["method"], comparison["a"]["method"]) == ("dms", "vanilla")
    assert comparison["at_equal_size"][0]["n_problems"] == 6
    assert comparison["at_equal_size"][0]["difference_low"] is None


def test_compare_knows_runs_by_their_places_not_by_their_names(call, folder, tmp_path):
    write(tmp_path / "before" / "whole", VANILLA + DMS)
    for a, b in (("before/whole", "results/whole"), ("results/whole", "before/whole")):
        _, out, _ = call("compare", a, b)  # chains as equal as those of a deterministic rerun
        assert out.startswith(f"A: {a}\nB: {b}\n")
        assert "vanilla  vanilla" in out
        assert "dms 8×   dms 8×" in out
    assert call("compare", "results/whole", "results/../results/whole")[1].startswith("A: whole\nB: whole\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("results", "results/whole"), "results holds 2 runs: pass the folder of one"),
        (("results/whole", "results/whole", "--pair", "dms"), "e.g. dms:vanilla"),
        (("results/whole", "results/whole", "--axis", "euros"), "unknown axis 'euros'"),
        (("results/whole", "results/nowhere"), "no folder results/nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, folder, arguments, message):
    code, _, err = call("compare", *arguments)
    assert code == 2
    assert message in err


def test_another_vote_is_shown_before_and_after(call, folder):
    (run,) = results.read(folder / "whole")
    code, out, err = call("score", "results/whole", "--vote", "mean@k")
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("mini_aime")}
    for method, cr in (("vanilla", 1), ("dms", 8)):
        before, after = (
            next(p for p in points if (p.series.method, p.W, p.L) == (method, 4, 2048))
            for points in (run.points(), results.read(folder / "whole")[0].points())
        )
        assert after.accuracy.mean() < before.accuracy.mean()
        assert f"4-2K-{cr} " in rows[method]
        place = rows[method].index(f"{100 * before.accuracy.mean():.1f} [")
        assert f"{100 * after.accuracy.mean():.1f} [" in rows[method][place + 5 :]
    assert "before → after" in out
    (line,) = call("score", "results/whole", "--vote", "task", "--json")[1].splitlines()
    assert json.loads(line)["vote"] is None
