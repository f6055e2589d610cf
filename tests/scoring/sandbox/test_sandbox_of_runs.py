"""Where a run's programs are run follows from who wrote them, and is known before anything is generated."""

import json

import checkpoints
import commandline
import pytest

from hyperscale.scoring.sandbox import choose, pool

TASK = ("--task", "mini_lcb", "--limit", 1, "--budget", "all", "--grid", "one", "--length", 32, "--out", "out")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The entry point on a machine without namespaces."""
    monkeypatch.setattr(choose, "find_fault", lambda level: "not installed" if level in choose.STRONG else None)
    monkeypatch.setattr(pool, "_policy", ("auto", False))
    choose.print_note_once.cache_clear()
    return commandline.caller(monkeypatch, capsys, tmp_path)


def test_the_built_in_model_runs_guarded(run, tmp_path):
    code, _, err = run("run", "--model", "mini", *TASK)
    assert code == 0, err
    assert json.loads((tmp_path / "out/run.json").read_text())["sandbox"] == "guard"


def test_another_model_is_refused_on_the_same_task(run, tmp_path):
    model = checkpoints.write(tmp_path / "weights", crs=()) / "base"
    code, _, err = run("run", "--model", model, *TASK)
    assert code == 2
    assert "no sandbox for programs written by the model (bwrap: not installed; unshare: not installed)" in err
    assert not list(tmp_path.glob("out/samples.jsonl"))
    code, _, err = run("run", "--model", model, *TASK, "--sandbox", "none")
    assert code == 0, err
    assert "can read your files" in err
