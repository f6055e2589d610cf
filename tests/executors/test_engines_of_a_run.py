"""A run whose engines work side by side gives what a run with one engine gives, whatever becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import pandas as pd
import pytest
from held_run import HELD, hold_at, let_go
from whole_runs import chains, execute_run, make, points

from hyperscale import results
from hyperscale.errors import ConfigError, ResultsError
from hyperscale.executors.faults import FILE, Fault, append_faults, forget_given_up, read_faults
from hyperscale.gate.from_runs import record_runs
from hyperscale.planning.run_state import state_of
from hyperscale.run import prepare

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def alone(weights, tmp_path_factory):
    """A run with one engine, in the run's own process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    execute_run(make(weights), folder)
    return folder


def test_two_engines_give_what_one_gives(weights, alone, tmp_path):
    notes = execute_run(make(weights, engines=2), tmp_path / "run")
    assert chains(tmp_path / "run") == chains(alone)
    pd.testing.assert_frame_equal(points(tmp_path / "run"), points(alone))
    assert not [text for text in notes if "lost" in text]
    assert not (tmp_path / "run" / FILE).exists()


def command(weights, folder, *more):
    options = ["--model", str(weights), "--method", "vanilla,dms,tova", "--cr", "8", "--task", "mini_aime,mini_gpqa"]
    options += ["--length", "32,64,128", "--budget", "1x", "--grid", "mini", "--predict", "closed"]
    options += ["--engine", "torch", "--batch-size", "4"]
    options += ["--limit", "6", "--out", str(folder), "--engines", "2", *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", HELD, "run", *options]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(pid):
    """Processes of engines that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (folder / "stat").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == pid and "local_worker" in line:
            found.append(int(folder.name))
    return sorted(found)


def test_engines_that_are_killed_lose_nothing(weights, alone, tmp_path):
    folder = tmp_path / "run"
    hold_at(folder, 4)  # as it may be done before the third is killed
    run = command(weights, folder)
    kills = 0
    while run.poll() is None:
        time.sleep(0.05)
        # Now one engine, now the other, once the chains of the last one that was killed have gone on.
        if kills < 3 and _count_lines(folder) >= 4 * (kills + 1) and (workers := workers_of(run.pid)):
            os.kill(workers[kills % len(workers)], signal.SIGKILL)
            kills += 1
            hold_at(folder, 4 * (kills + 1)) if kills < 3 else let_go(folder)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert kills == 3
    assert chains(folder) == chains(alone)
    pd.testing.assert_frame_equal(points(folder), points(alone))
    assert "an engine was lost" in " ".join(out.split())
    (read,) = results.read(folder)
    assert any("were lost while run ran" in note or "was lost while run ran" in note for note in read.notes)
    record_runs([read])  # the gate takes it: nothing is missing


@pytest.mark.slow
def test_a_run_that_is_killed_is_resumed_and_gives_the_same(weights, alone, tmp_path):
    folder = tmp_path / "run"
    for at in (3, 11):
        hold_at(folder, at)
        run = command(weights, folder)
        while run.poll() is None and _count_lines(folder) < at:
            time.sleep(0.02)
        run.kill()
        run.wait()
    let_go(folder)
    assert 0 < _count_lines(folder) < _count_lines(alone)
    run = command(weights, folder)
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert chains(folder) == chains(alone)
    pd.testing.assert_frame_equal(points(folder), points(alone))


def _count_lines(folder):
    path = folder / "samples.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def incomplete(alone, tmp_path):
    """A run in which a problem was given up: it lacks its chains of an arm, and says so."""
    import shutil

    folder = tmp_path / "incomplete"
    shutil.copytree(alone, folder)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    problem = next(v["problem"] for v in map(json.loads, lines) if (v["method"], v["task"]) == ("tova", "mini_aime"))
    is_gone = [(v["method"], v["task"], v["problem"]) == ("tova", "mini_aime", problem) for v in map(json.loads, lines)]
    (folder / "samples.jsonl").write_text("".join(line for line, gone in zip(lines, is_gone, strict=True) if not gone))
    fault = Fault("3 engines were lost with it", "node", sum(is_gone), problem, "tova 8×", "mini_aime")
    append_faults(folder, [Fault("its process ended", chains=2, arm="tova 8×"), fault])
    return folder


def test_a_problem_that_was_given_up_is_told_and_refused_and_tried_again(weights, alone, incomplete):
    (read,) = results.read(incomplete)
    assert state_of(read).finished  # nothing more will come of it
    made = {(point.series.method, point.series.task): point.given_up for point in read.points()}
    assert made == {
        (m, t): int((m, t) == ("tova", "mini_aime")) for m in ("vanilla", "dms", "tova") for t in make(weights).tasks
    }
    assert any("lacks 1 problem of mini_aime with tova 8×" in note for note in read.notes)
    with pytest.raises(ResultsError, match="lacks 1 problems of mini_aime with tova 8×"):
        record_runs([read])
    execute_run(make(weights), incomplete)
    assert chains(incomplete) == chains(alone)
    pd.testing.assert_frame_equal(points(incomplete), points(alone))
    assert [fault.problem for fault in read_faults(incomplete)] == [None]
    record_runs(results.read(incomplete))


def test_a_file_of_faults_that_is_broken_is_refused(incomplete):
    (incomplete / FILE).write_text('{"arm": "tova"\n')
    with pytest.raises(ResultsError, match=r"faults\.jsonl is corrupt"):
        results.read(incomplete)
    with pytest.raises(ResultsError, match="remove it"):
        forget_given_up(incomplete)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gpus": 2}, "--gpus and --tensor-parallel need GPUs"),
        ({"tensor_parallel": 2}, "only vLLM shares one engine among GPUs"),
        ({"address": "auto"}, "--address auto is that of a Ray cluster"),
        ({"gpus": 2, "engines": 3}, "--engines 3 of 1 GPUs each take 3, more than --gpus 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(weights, changes, text):
    with pytest.raises(ConfigError, match=text):
        prepare.prepare_run(make(weights, device="cpu", **changes), lambda _: None)
