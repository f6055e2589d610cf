"""The whole line on a tiny random checkpoint: plan, generate, score, store, points; nothing is replaced."""

import itertools
import json
import signal
import subprocess
import sys
import time

import checkpoints
import pandas as pd
import pytest
from held_run import HELD, hold_at, let_go
from stored_chains import stored_chains

from hyperscale import results
from hyperscale.errors import ResultsError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.planning import grid
from hyperscale.results import regrade
from hyperscale.run import execute, prepare
from hyperscale.run.config import load
from hyperscale.run.observer import RunObserver
from hyperscale.scoring import graders

pytestmark = pytest.mark.e2e

TASKS = ("mini_aime", "mini_gpqa")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"))


def make(weights, **changes):
    values = {
        "model": str(weights),
        "methods": ["vanilla", "dms"],
        "crs": [8],
        "tasks": TASKS,
        "lengths": [32, 64, 128],
        "budget": "1x",
        "grid": "mini",
    }
    return load.make_config({**values, "limit": 3, **changes})


def execute_run(asked, folder, observer=None):
    run = prepare.prepare_run(asked, lambda text: None)
    return run, execute.execute_run(run, folder, observer or RunObserver())


def points(folder):
    return pd.read_csv(folder / results.POINTS).drop(columns=["run", "seconds"])


def test_the_longest_sequence_is_known_before_there_is_a_plan(weights):
    run = prepare.prepare_run(make(weights, lengths=[64, 16]), lambda text: None)
    assert run.max_sequence_tokens == 64 + max(
        len(item.prompt_ids) for items in run.problems.values() for item in items
    )


@pytest.fixture(scope="session")
def whole(weights, tmp_path_factory):
    """An unbroken run, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run, _ = execute_run(make(weights), folder)
    return run, folder


def test_every_planned_chain_is_stored_once(whole):
    run, folder = whole
    planned = {
        (task, problem.doc.id, arm.method, arm.CR, 0, chain, 0, arm.kv_budget): length
        for arm in run.methods
        for task, problems in run.problems.items()
        for problem in problems
        for chain, length in run.plan.chains(arm, task)
    }
    stored = stored_chains(folder)
    assert {key: s.L for key, s in stored.items()} == planned
    assert {key[2] for key in planned} == {"vanilla", "dms"}
    assert len((folder / results.SAMPLES).read_text().splitlines()) == len(planned)


def test_the_longest_chains_start_first_and_neighbours_share_their_prompt(whole):
    run, _ = whole
    for arm in run.methods:
        requests = [request for _, request in run.requests(arm)]
        lengths = [request.L for request in requests]
        assert lengths == sorted(lengths, reverse=True)
        groups = [key for key, _ in itertools.groupby((r.L, r.problem) for r in requests)]
        assert len(groups) == len(set(groups))
        assert all(request.cuts[-1] == request.L for request in requests)


def test_samples_say_what_the_contract_promises(whole):
    run, folder = whole
    docs = {(name, p.doc.id): p for name, problems in run.problems.items() for p in problems}
    dense = compressed = 0.0
    for s in stored_chains(folder).values():
        problem = docs[s.task, s.problem]
        grader = graders.get(problem.task.grader)
        assert s.prompt_tokens == len(problem.prompt_ids)
        assert s.tokens <= s.L == s.whole.L
        for cut in s.cuts:
            assert cut.answer == grader.extract(s.text[: cut.chars])
            assert cut.correct == (cut.answer is not None and grader.correct(cut.answer, problem.doc.target))
        assert s.kv_entry_bytes == 2 * 16 * 2 * 2 * 4
        reads, peak = dense_reads(s.prompt_tokens, s.tokens), dense_peak(s.prompt_tokens, s.tokens)
        if s.method == "vanilla":
            assert (s.whole.kv_reads, s.whole.peak_kv) == (reads, peak)
        else:
            assert s.whole.kv_reads <= reads
            dense, compressed = dense + reads, compressed + s.whole.kv_reads
    assert compressed < dense / 1.2  # the gates of the checkpoint did evict


def test_points_cover_the_plan(whole):
    run, folder = whole
    found = points(folder)
    planned = {(p.task, p.arm.method, p.W, p.L, p.arm.CR) for p in run.plan.points}
    assert planned <= set(found[["task", "method", "W", "L", "CR"]].itertuples(index=False, name=None))
    assert (found["n_problems"] == 3).all()
    assert (found[found["method"] == "vanilla"]["realised_cr"] == 1).all()


def test_run_json(whole):
    run, folder = whole
    info = results.read(folder)[0].info
    assert info["config"] == run.config.compared()
    assert info["tasks"].keys() == set(TASKS)
    assert info["seeds"] == [0]
    assert {"hyperscale", "python", "torch", "transformers"} <= info["versions"].keys()
    assert info["hardware"]["cores"] >= 1


def test_another_batch_size_gives_the_same_chains(whole, weights, tmp_path):
    execute_run(make(weights, batch_size=5), tmp_path / "run")
    assert stored_chains(tmp_path / "run") == stored_chains(whole[1])


def test_seeds_and_a_limit(whole, weights, tmp_path):
    execute_run(make(weights, seeds=[0, 7], limit=2, methods=["vanilla"]), tmp_path)
    both, before = stored_chains(tmp_path), stored_chains(whole[1])
    old = {key for key in both if key[4] == 0}
    assert {key[4] for key in both} == {0, 7}
    assert all(both[key] == before[key] for key in old)
    assert any(both[key].text != both[key._replace(seed=7)].text for key in old)
    assert set(points(tmp_path)["n_seeds"]) == {2}


def test_methods_that_depend_on_the_length_run_once_per_length(weights, tmp_path):
    asked = make(weights, methods=["window"], params={"window": {"rule": "fixed"}}, crs=[4], tasks=["mini_aime"])
    run, found = execute_run(asked, tmp_path)
    (arm,) = run.methods
    assert not arm.length_invariant
    stored = stored_chains(tmp_path)
    wanted = run.plan.chains(arm, "mini_aime")
    assert len({length for _, length in wanted}) > 1
    assert sorted((s.chain, s.L) for s in stored.values()) == sorted(3 * wanted)
    assert {point.L for point in found} == {length for _, length in wanted}


class Killed(BaseException):
    pass


class Killer(RunObserver):
    def __init__(self, after):
        self.left = after

    def on_chain(self, arm, problem, sample):
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_a_broken_run_goes_on_where_it_stopped(whole, weights, tmp_path):
    for after in (0, 3, 8):
        with pytest.raises(Killed):
            execute_run(make(weights), tmp_path, Killer(after))
        with (tmp_path / results.SAMPLES).open("ab") as file:
            file.write(b'{"schema": 2, "model": "to')  # as a kill within a write would leave it
    kept = (tmp_path / results.SAMPLES).read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert len(kept.splitlines()) == 1 + 4 + 9
    run, _ = execute_run(make(weights, batch_size=3), tmp_path)
    assert (tmp_path / results.SAMPLES).read_bytes().startswith(kept)
    assert stored_chains(tmp_path) == stored_chains(whole[1])
    pd.testing.assert_frame_equal(points(tmp_path), points(whole[1]), check_exact=True)
    assert len(run.methods) == 2


def test_a_finished_run_generates_nothing_and_rebuilds_its_points(whole, weights, tmp_path):
    execute_run(make(weights), tmp_path, None)
    before, table = (tmp_path / results.SAMPLES).read_bytes(), (tmp_path / results.POINTS).read_bytes()
    (tmp_path / results.POINTS).unlink()
    execute_run(make(weights), tmp_path, Killer(0))  # would be killed at the first chain
    assert (tmp_path / results.SAMPLES).read_bytes() == before
    assert (tmp_path / results.POINTS).read_bytes() == table


def test_a_changed_configuration_is_refused(whole, weights):
    before = (whole[1] / results.SAMPLES).read_bytes()
    with pytest.raises(ResultsError, match=r"temperature was 0\.6, now 0\.7"):
        execute_run(make(weights, temperature=0.7), whole[1])
    assert (whole[1] / results.SAMPLES).read_bytes() == before


def command(weights, folder):
    options = {"--model": weights, "--method": "vanilla,dms", "--cr": 8, "--task": ",".join(TASKS), "--budget": "1x"}
    options |= {"--length": "32,64,128", "--grid": "mini", "--limit": 3, "--out": folder}
    return [sys.executable, "-c", HELD, "run", *(str(part) for pair in options.items() for part in pair)]


def test_killed_processes_lose_nothing(whole, weights, tmp_path):
    """SIGKILL, then SIGINT, in the middle of the run; then the same command to the end."""
    samples = tmp_path / "run" / results.SAMPLES
    count = 0
    for kill in (signal.SIGKILL, signal.SIGINT):
        hold_at(tmp_path / "run", count + 4)
        process = subprocess.Popen(
            command(weights, tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 400
        while process.poll() is None and time.monotonic() < deadline:
            if samples.exists() and samples.read_bytes().count(b"\n") > count + 3:
                break
            time.sleep(0.005)
        process.send_signal(kill)
        error = process.communicate(timeout=300)[1]
        count = samples.read_bytes().count(b"\n")
        if kill == signal.SIGINT:
            assert (process.returncode, error) == (
                2,
                "interrupted: finished chains are kept; the same command resumes\n",
            )
    assert 0 < count < len(stored_chains(whole[1])), "the kills came too late to show anything"
    kept = samples.read_bytes()[: samples.read_bytes().rfind(b"\n") + 1]
    let_go(tmp_path / "run")
    done = subprocess.run(command(weights, tmp_path / "run"), capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resuming" in done.stdout
    assert "W-L-CR" in done.stdout
    assert "Margins over vanilla" in done.stdout
    assert samples.read_bytes().startswith(kept)
    assert stored_chains(tmp_path / "run") == stored_chains(whole[1])
    pd.testing.assert_frame_equal(points(tmp_path / "run"), points(whole[1]), check_exact=True)
    assert json.loads((tmp_path / "run" / results.RUN_FILE).read_text())["config"] == whole[0].config.compared()


def test_points_are_made_at_the_widths_of_the_grid(weights, tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text("description: odd\nbudget: all\nwidths: [1, 3]\ncrs: [8]\n")
    monkeypatch.setattr(grid, "data_dir", lambda kind: tmp_path)
    asked = make(weights, grid="own", budget="all", methods=["vanilla"], tasks=["mini_aime"], lengths=[16, 32], limit=2)
    execute_run(asked, tmp_path / "run")
    (run,) = results.read(tmp_path / "run")
    assert {sample.chain for sample in run.samples} == {0, 1, 2}
    assert set(points(tmp_path / "run")["W"]) == {1, 2, 3}
    # The folder alone says so, whatever has become of the grid.
    (tmp_path / "own.yaml").unlink()
    before = (tmp_path / "run" / results.POINTS).read_bytes()
    regrade.regrade(tmp_path / "run")
    assert (tmp_path / "run" / results.POINTS).read_bytes() == before
    assert {point.W for point in run.points()} == {1, 2, 3}
