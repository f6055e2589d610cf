"""What a run tells machines, while it really runs a tiny random checkpoint."""

import csv
import io
import json
import math

import checkpoints
import numpy as np
import pytest
from commandline import caller
from synthetic_samples import sample, with_whole

from hyperscale import results
from hyperscale.cli.display import json_events
from hyperscale.methods.arm import Arm
from hyperscale.run.observer import ArmSize

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


def lines(text):
    """Every line of a text, which has to be an object of strict JSON."""

    def refuse(name):
        raise ValueError(name)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_run_in_json_lines(weights, tmp_path, monkeypatch, capsys):
    call = caller(monkeypatch, capsys, tmp_path)
    monkeypatch.setattr(json_events, "INTERVAL", math.inf)  # however slow the machine is
    options = ("--model", weights, "--method", "vanilla,dms", "--task", "mini_aime", "--grid", "ci")
    options = (*options, "--length", "16,32")
    command = ("run", *options, "--budget", "2x", "--limit", "1", "--predict", "pilot", "--out", "run", "--json")
    code, out, err = call(*command)
    assert (code, err) == (0, "")
    found = lines(out)
    assert all(each["schema"] == 1 for each in found)
    assert [each["elapsed"] for each in found] == sorted(each["elapsed"] for each in found)
    names = [each["event"] for each in found if each["event"] != "stage"]
    assert names == [*["pilot"] * 4, "planned", "opened", *["progress"] * 4, "finished"]
    of = {each["event"]: each for each in found}

    planned = of["planned"]
    assert planned["folder"] == of["opened"]["folder"] == of["finished"]["folder"] == "run"
    assert planned["points"]
    assert {point["predicted_by"] for point in planned["points"]} <= {"pilot", "closed form"}
    assert planned["tokens_expected"] <= planned["tokens_most"]
    (run,) = results.read(tmp_path / "run")
    assert of["finished"]["chains"] == planned["chains"] == len(run.samples)

    last = [each for each in found if each["event"] == "progress"][-1]
    assert (last["method"], last["CR"], last["done"], last["seconds_left"]) == ("dms", 8, last["total"], 0)
    assert 0 <= last["right"] <= 1 <= last["realised_cr"]

    with (tmp_path / "run" / results.POINTS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(of["finished"]["points"])
    for row, point in zip(rows, of["finished"]["points"], strict=True):
        assert row.keys() == point.keys()
        assert float(row["accuracy"]) == point["accuracy"]
        assert point["accuracy_se"] is None  # of a single problem

    again = lines(call(*command)[1])
    assert [e["event"] for e in again if e["event"] != "stage"] == ["planned", "opened", *["progress"] * 4, "finished"]
    assert next(e for e in again if e["event"] == "opened")["finished"] == len(run.samples)

    code, out, err = call(*command[:-1], "--temperature", "0.1", "--json")
    assert code == 2
    assert err == f"error: {lines(out)[-1]['message']}\n"
    assert lines(out)[-1]["event"] == "failed"

    code, out, err = call("plot", "run", "--axis", "kv_reads", "--resamples", "100", "--json")
    assert (code, err) == (0, "")
    (drawn,) = lines(out)
    assert (drawn["runs"], drawn["chains"]) == (1, len(run.samples))
    assert {(p["method"], p["W"], p["L"]) for p in drawn["points"]} == {
        (p["method"], p["W"], p["L"]) for p in of["finished"]["points"]
    }
    (margin,) = drawn["margins"]
    assert (margin["a"], margin["b"], margin["linear_low"]) == ("dms", "vanilla", None)
    assert all((tmp_path / path).is_file() for path in drawn["files"])

    (graded,) = lines(call("score", "run", "--json")[1])
    assert (graded["chains"], graded["answers"], graded["verdicts"]) == (len(run.samples), 0, 0)
    (voted,) = lines(call("score", "run", "--vote", "mean@k", "--json")[1])
    assert (voted["folder"], voted["vote"]) == ("run", "mean@k")


def test_a_dry_run_tells_its_plan_only(weights, tmp_path, monkeypatch, capsys):
    call = caller(monkeypatch, capsys, tmp_path)
    code, out, err = call(
        "run", "--model", weights, "--task", "mini_aime", "--grid", "mini", "--budget", "all", "--dry-run", "--json"
    )
    assert (code, err) == (0, "")
    planned = lines(out)[-1]
    assert planned["event"] == "planned"
    assert planned["ceilings"] == {"mini_aime": None}
    code, out, _ = call(
        "run",
        "--model",
        weights,
        "--task",
        "mini_aime",
        "--grid",
        "mini",
        "--budget",
        "tokens=1",
        "--dry-run",
        "--json",
    )
    assert code == 2
    assert lines(out)[-1]["event"] == "failed"


def test_progress_comes_at_intervals(monkeypatch):
    now, out = [100.0], io.StringIO()
    monkeypatch.setattr("hyperscale.cli.display.json_events.time.monotonic", lambda: now[0])
    told, arm = json_events.JsonObserver(out), Arm("dms", 8.0)
    told.on_arm_start(arm, [], ArmSize(chains=100, max_tokens=6400, batch_size=4, chains_at={("mini_aime", 256): 1}))
    chain = with_whole(sample(tokens=50, prompt_tokens=25), kv_reads=245.0)
    for _ in range(100):
        now[0] += 0.125
        told.on_chain(arm, None, chain)
    told.on_arm_end(arm)
    found = lines(out.getvalue())
    assert [each["done"] for each in found] == [0, 16, 32, 48, 64, 80, 96, 100]
    assert found[0]["right"] is None
    assert (found[1]["right"], found[1]["realised_cr"], found[1]["tokens_per_second"]) == (1, 10, 200)
    assert (found[1]["elapsed"], found[-1]["seconds_left"]) == (2, 0)
    assert found[0]["right_at"] == []
    assert found[1]["right_at"] == [{"L": 256, "problems": 1, "right": 1, "reference": None}]


def test_numbers_that_json_does_not_have():
    out = io.StringIO()
    json_events.write_json_line(
        out, {"a": math.nan, "b": [np.float64("inf"), np.int64(3), np.float64(0.5)], "c": {"d": True}, "e": "é"}
    )
    assert out.getvalue() == '{"a":null,"b":[null,3,0.5],"c":{"d":true},"e":"é"}\n'
