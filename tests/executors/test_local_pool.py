"""Engines in processes of this machine: they give what one engine gives, and outlive what happens to them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import scripted_engine
from scripted_engine import ScriptedProvider, chain_of, provider_of_this_process, spec_of

from hyperscale.engines.base import Request, Sampling
from hyperscale.errors import EngineError, ModelError
from hyperscale.executors import PooledEngine, pooled_engine
from hyperscale.executors.executor import EngineResources
from hyperscale.executors.local import LocalExecutor

pytestmark = pytest.mark.e2e

HELPERS = Path(scripted_engine.__file__).parent


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A function that makes a pool of so many scripted engines."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    pools = []

    def make(count, *, batch_size=4, stall_seconds=600.0, resources=None, gpus=()):
        made = PooledEngine(LocalExecutor(resources or EngineResources(), count, gpus), count, stall_seconds)
        spec = spec_of(tmp_path, batch_size)
        made.use(ScriptedProvider(), spec, spec)
        pools.append(made)
        return made

    yield make
    for made in pools:
        made.close()


def requests(*problems, chains=1, L=5):
    return [Request(problem, chain, (1, 2, len(problem)), L) for problem in problems for chain in range(chains)]


def generate(engine, asked, seed=0):
    """The chains by their names; each has to be what any engine gives, and to come once."""
    sampling, found = Sampling(seed=seed), {}
    by_name = {(request.problem, request.chain): request for request in asked}
    for chain in engine.generate(asked, sampling):
        key = chain.problem, chain.chain
        assert key not in found
        assert chain == chain_of(by_name[key], sampling)
        found[key] = chain
    return found


def started(folder):
    file = folder / "started"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_chains_are_those_of_one_engine_and_jobs_follow_each_other(pool, tmp_path):
    engine = pool(2)
    for seed in range(3):
        asked = requests("meet", *map(str, range(9)), chains=3)
        assert len(generate(engine, asked, seed)) == 30
    assert engine.faults == []
    assert engine.name == "scripted"
    assert len(started(tmp_path)) == 2  # engines stay from job to job


def test_few_chains_start_few_engines(pool, tmp_path):
    assert len(generate(pool(5), requests("a"))) == 1
    assert len(started(tmp_path)) == 1


def test_each_engine_has_its_own_gpus(pool, tmp_path):
    engine = pool(2, resources=EngineResources(gpus=2), gpus=("3", "5", "GPU-a", "7"))
    generate(engine, requests("meet", *map(str, range(11))))
    assert sorted(line[2] for line in started(tmp_path)) == ["3,5", "GPU-a,7"]


def test_each_engine_has_its_part_of_the_cores(pool, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    generate(pool(1, resources=EngineResources(cpus=3)), requests("a"))
    assert started(tmp_path)[0][1] == "3"


@pytest.mark.parametrize(
    "problem", ["kill", *(pytest.param(problem, marks=pytest.mark.slow) for problem in ("raise", "refuse"))]
)
def test_a_problem_that_takes_three_engines_with_it_is_given_up_and_the_rest_is_generated(pool, tmp_path, problem):
    engine = pool(2)
    good = list(map(str, range(12)))
    found = generate(engine, requests(*good[:3], problem, *good[3:], chains=2))
    assert {name for name, _ in found} == set(good)
    assert len(found) == 24
    (given_up,) = [fault for fault in engine.faults if fault.problem is not None]
    assert (given_up.problem, given_up.chains) == (problem, 2)
    # The third convicts it if nothing else was in that engine. Its two chains may be in both engines as the second one
    # is lost: then the third was not alone, and one more is.
    assert len([fault for fault in engine.faults if fault.problem is None]) in (3, 4)
    reason = {"kill": "SIGKILL", "raise": "ZeroDivisionError: of a library", "refuse": "cannot do this"}[problem]
    assert reason in given_up.reason
    assert "3 engines" in str(given_up)


def test_a_problem_of_one_chain_takes_no_more_than_three_engines(pool):
    engine = pool(2)
    good = list(map(str, range(12)))
    asked = [*requests(*good[:3], chains=2), *requests("kill"), *requests(*good[3:], chains=2)]
    assert len(generate(engine, asked)) == 24
    (given_up,) = [fault for fault in engine.faults if fault.problem is not None]
    assert (given_up.problem, given_up.chains) == ("kill", 1)
    assert len([fault for fault in engine.faults if fault.problem is None]) == 3


def test_an_engine_that_is_ended_once_loses_nothing(pool):
    engine = pool(2)
    found = generate(engine, requests("once", *map(str, range(12)), chains=2))
    assert len(found) == 26
    (fault,) = engine.faults
    assert fault.problem is None
    assert fault.chains
    assert "SIGKILL" in fault.reason


def test_an_engine_that_makes_no_step_is_replaced(pool):
    engine = pool(2, stall_seconds=2.0)
    found = generate(engine, requests("a", "hang", "b"))
    assert {name for name, _ in found} == {"a", "b"}
    assert "no decode step for 2 s" in engine.faults[-1].reason


def test_an_engine_that_works_is_not_taken_to_hang(pool):
    engine = pool(1, stall_seconds=6.0)  # several reports long, also on a machine that is busy with other tests
    start = time.monotonic()
    assert len(generate(engine, requests("a", L=9000))) == 1
    assert time.monotonic() - start > 6.0
    assert engine.faults == []


def test_a_process_that_is_stopped_is_replaced(pool, tmp_path):
    engine = pool(1, stall_seconds=2.5)
    chains = engine.generate(requests(*map(str, range(8)), L=300), Sampling())
    found = [next(chains)]
    os.kill(int(started(tmp_path)[0][0]), signal.SIGSTOP)
    found += chains
    assert len({chain.problem for chain in found}) == len(found) == 8
    assert len(engine.faults) == 1


def test_a_model_that_cannot_be_loaded_ends_the_run(pool, tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(ModelError, match=r"on .+: the weights are broken"):
        generate(pool(2), requests("a", "b"))


def test_an_error_of_the_user_in_the_middle_ends_the_run_and_the_pool_goes_on(pool):
    engine = pool(2)
    with pytest.raises(ModelError, match="no such layer"):
        generate(engine, requests(*map(str, range(4)), "model"))
    assert len(generate(engine, requests("a", "b"))) == 2


def test_engines_that_are_all_lost_end_the_run(pool, monkeypatch):
    monkeypatch.setattr(pooled_engine, "_MAX_LOSSES", 4)
    with pytest.raises(EngineError, match="5 engines were lost after each other"):
        generate(pool(2, batch_size=1), requests(*(f"kill {n}" for n in range(10))))


def test_a_job_that_is_left_does_not_spoil_the_next(pool):
    engine = pool(2)
    chains = engine.generate(requests(*map(str, range(20)), L=200), Sampling())
    next(chains)
    chains.close()
    assert len(generate(engine, requests(*map(str, range(20)), chains=2), seed=5)) == 40


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_give_nothing_twice(pool, tmp_path):
    engine = pool(2)
    asked = requests(*map(str, range(80)), chains=2, L=300)
    stop = threading.Event()
    kills = []

    def kill():
        while not stop.wait(1.2) and len(kills) < 6:
            for pid in reversed([int(line[0]) for line in started(tmp_path)]):
                if Path(f"/proc/{pid}/cmdline").exists() and pid not in kills:
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)
                    break

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = generate(engine, asked)
    finally:
        stop.set()
        thread.join()
    assert len(found) == 160
    assert len(kills) >= 3
    assert not [fault for fault in engine.faults if fault.problem is not None]


def test_workers_end_with_the_run(tmp_path):
    """A run that is killed leaves no process behind."""
    import subprocess

    script = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from hyperscale.engines.base import Request, Sampling
from hyperscale.executors import PooledEngine, pooled_engine
from hyperscale.executors.executor import EngineResources
from hyperscale.executors.local import LocalExecutor
from scripted_engine import ScriptedProvider, spec_of
engine = PooledEngine(LocalExecutor(EngineResources(), 2), 2)
spec = spec_of({str(tmp_path)!r}, 1)
engine.use(ScriptedProvider(), spec, spec)
for chain in engine.generate([Request(str(n), 0, (1,), 500) for n in range(5000)], Sampling()):
    print(chain.problem, flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *sys.path])}
    run = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    run.stdout.readline()
    for _ in range(3000):  # on a busy machine the first chain may end before the second worker has begun
        workers = [int(line[0]) for line in started(tmp_path)]
        if len(workers) == 2:
            break
        time.sleep(0.1)
    assert len(workers) == 2
    run.kill()
    run.wait()
    for _ in range(600):
        alive = [pid for pid in workers if _is_running(pid)]
        if not alive:
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {alive}")


class _OneComes(LocalExecutor):
    """The second process is stopped before it has said that it is there, as one that finds no room."""

    def start(self, number):
        worker = super().start(number)
        if number == 2:
            os.kill(worker._process.pid, signal.SIGSTOP)
        return worker


def test_an_engine_does_the_work_of_one_that_finds_no_room(tmp_path, monkeypatch):
    """Its batch is larger than its share, and what is kept for the other one must not stop it."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    engine, told = PooledEngine(_OneComes(EngineResources(), 2), 2, stall_seconds=30.0), []
    engine.tell = told.append
    spec = spec_of(tmp_path, 8)
    engine.use(ScriptedProvider(), spec, spec)
    try:
        assert len(generate(engine, requests(*map(str, range(10)), L=50))) == 10
        monkeypatch.setattr(pooled_engine, "_SECONDS_FOR_ROOM", 3.0)  # now that the first one is there
        time.sleep(3)
        assert len(generate(engine, requests(*map(str, range(10)), L=50))) == 10
    finally:
        for member in engine._members:
            member.worker.kill()
    assert engine.faults == []
    assert len(told) == 1
    assert told[0].startswith("1 of 2 engines did not start within 3 s")


def test_a_run_that_was_slow_itself_does_not_take_engines_for_hung(pool):
    engine, asked = pool(2, stall_seconds=2.0), requests(*map(str, range(12)), L=300)
    count = 0
    for _ in engine.generate(asked, Sampling()):
        if not count:
            time.sleep(4)  # as a grader that takes long, or a run that was stopped by Ctrl-Z
        count += 1
    assert count == 12
    assert engine.faults == []


def test_a_library_that_ends_the_process_is_told(pool, tmp_path):
    engine, asked = pool(2), requests("a", "exit", "b")
    assert {problem for problem, _ in generate(engine, asked)} == {"a", "b"}
    assert all(fault.reason.endswith("SystemExit: 3") for fault in engine.faults)
    assert [fault.problem for fault in engine.faults if fault.problem] == ["exit"]


def test_a_process_that_left_a_child_behind_is_lost_all_the_same(pool, tmp_path):
    engine, start = pool(1), time.monotonic()
    assert set(generate(engine, requests("fork", "a"))) == {("a", 0)}
    assert "ended by SIGKILL" in engine.faults[0].reason
    assert time.monotonic() - start < 100  # children that hold the connections' other ends live for 120 s


def test_what_an_engine_cannot_read_ends_it(pool, tmp_path, monkeypatch):
    """As a provider that is only known to the run's own process: the module of a script, or a newer version."""
    monkeypatch.setattr(pooled_engine, "_MAX_LOSSES", 1)
    engine = pool(1)
    spec = spec_of(tmp_path)
    engine.use(provider_of_this_process(monkeypatch), spec, spec)
    with pytest.raises(EngineError, match="its process ended with exit code 1"):
        list(engine.generate(requests("a"), Sampling()))


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
