"""Engines on a real cluster of several Ray nodes on this machine: the same chains, whatever becomes of the nodes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import pandas as pd
import pytest
import scripted_engine
from scripted_engine import ScriptedProvider, chain_of, provider_of_this_process, spec_of
from whole_runs import chains, execute_run, make, points

from hyperscale.engines.base import Request, Sampling
from hyperscale.errors import EngineError, ModelError
from hyperscale.executors import PooledEngine, pooled_engine
from hyperscale.executors.executor import EngineResources
from hyperscale.executors.faults import read_faults
from hyperscale.run.observer import RunObserver

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'hyperscale-kv[ray]'")
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cluster():
    """A cluster with a head that has no room for engines, and one node for each of two engines."""
    from ray.cluster_utils import Cluster

    helpers = str(Path(scripted_engine.__file__).parent)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([helpers, before])
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()
    os.environ["PYTHONPATH"] = before


@pytest.fixture
def pool(cluster, tmp_path):
    from hyperscale.executors.ray import RayExecutor

    pools = []

    def make(count, stall_seconds=600.0):
        executor = RayExecutor(EngineResources(), cluster.address)
        made = PooledEngine(executor, count, stall_seconds)
        spec = spec_of(tmp_path, 4)
        made.use(ScriptedProvider(), spec, spec)
        pools.append(made)
        return made

    yield make
    for made in pools:
        made.close()


def requests(*problems, chains=1, L=5):
    return [Request(problem, chain, (1, 2, len(problem)), L) for problem in problems for chain in range(chains)]


def check(found, asked):
    by_name = {(request.problem, request.chain): request for request in asked}
    assert sorted((chain.problem, chain.chain) for chain in found) == sorted(by_name)
    for chain in found:
        assert chain == chain_of(by_name[chain.problem, chain.chain], Sampling())


def pids(folder):
    path = folder / "started"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def test_chains_are_those_of_one_engine(pool, tmp_path):
    engine = pool(2)
    for _ in range(2):
        asked = requests("meet", *map(str, range(11)), chains=2)
        check(list(engine.generate(asked, Sampling())), asked)
    assert engine.faults == []
    assert len(pids(tmp_path)) == 2


@pytest.mark.slow
def test_an_actor_that_is_killed_is_replaced(pool, tmp_path, capfd):
    engine, asked = pool(2), requests(*map(str, range(40)), L=200)
    chains = engine.generate(asked, Sampling())
    found = [next(chains)]
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    found += chains
    check(found, asked)
    (fault,) = engine.faults
    assert fault.chains
    assert fault.place
    assert "its process ended" in fault.reason
    assert not capfd.readouterr().out  # which is the run's alone


@pytest.mark.slow  # `test_local_pool.py` has it on one machine, and the run below an actor of Ray's that is killed
def test_a_problem_that_kills_three_engines_is_given_up(pool):
    engine, asked = pool(2), requests("a", "kill", "b", "c")
    found = list(engine.generate(asked, Sampling()))
    check(found, [request for request in asked if request.problem != "kill"])
    assert [fault.problem for fault in engine.faults if fault.problem] == ["kill"]


def test_a_node_may_go_and_another_come_in_the_middle(pool, cluster):
    engine, asked = pool(2), requests(*map(str, range(60)), chains=2, L=300)
    chains = engine.generate(asked, Sampling())
    found = [next(chains) for _ in range(3)]
    cluster.remove_node(cluster.nodes.pop(0), allow_graceful=False)
    found += [next(chains) for _ in range(10)]  # the other one goes on
    cluster.nodes.append(cluster.add_node(num_cpus=1))
    found += chains
    check(found, asked)
    (fault,) = engine.faults
    assert fault.problem is None
    assert fault.reason == "its machine is gone"  # so that no problem is blamed for it


def test_engines_without_room_are_told_of_and_are_not_waited_for(pool, monkeypatch, tmp_path):
    monkeypatch.setattr(pooled_engine, "_SECONDS_FOR_ROOM", 1.0)
    engine, asked, told = pool(4), requests("hold", *map(str, range(11))), []

    def tell(text):
        told.append(text)
        if text.startswith("2 of 4 engines"):
            (tmp_path / "go").touch()

    engine.tell = tell
    check(list(engine.generate(asked, Sampling())), asked)
    assert engine.faults == []
    assert told[-1].startswith("2 of 4 engines did not start within 1 s")
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 15  # and not 20 s for each that never was there


def test_signals_are_answered_as_before(cluster):
    """Ray's own handler would end the run without a word."""
    script = f"""
import os, signal
from hyperscale.executors.ray import connect
signal.signal(signal.SIGTERM, lambda *_: print("answered", flush=True))
connect({cluster.address!r})
os.kill(os.getpid(), signal.SIGTERM)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "answered\n"


def test_what_an_actor_cannot_read_is_told(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(pooled_engine, "_MAX_LOSSES", 0)
    engine = pool(1)
    spec = spec_of(tmp_path)
    engine.use(provider_of_this_process(monkeypatch), spec, spec)
    with pytest.raises(EngineError, match=r"cannot read what it is given: .*of_this_process_alone"):
        list(engine.generate(requests("a"), Sampling()))


def test_an_actor_that_hangs_is_replaced(pool, tmp_path):
    engine, asked = pool(2, stall_seconds=3.0), requests(*map(str, range(16)), L=300)
    chains = engine.generate(asked, Sampling())
    found = [next(chains)]
    os.kill(pids(tmp_path)[0], signal.SIGSTOP)
    found += chains
    check(found, asked)
    assert "no decode step" in engine.faults[0].reason


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(pool, tmp_path):
    engine, asked = pool(2), requests(*map(str, range(400)), chains=1, L=400)
    found, killed, due = [], set(), time.monotonic() + 1
    for chain in engine.generate(asked, Sampling()):
        found.append(chain)
        alive = [pid for pid in pids(tmp_path) if pid not in killed]
        # Chains of the last kill have gone on: only a problem that keeps killing may be given up.
        if len(killed) < 20 and time.monotonic() > due and alive:
            pid = alive[len(killed) % len(alive)]
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            due = time.monotonic() + 0.4
    check(found, asked)
    assert len(killed) == 20
    assert len(engine.faults) == 20


def test_a_run_over_the_cluster_is_that_of_one_engine_also_when_an_actor_is_killed(cluster, tmp_path):
    weights = checkpoints.write(tmp_path / "weights")
    execute_run(make(weights, limit=4), tmp_path / "alone")
    asked = make(weights, limit=4, executor="ray", address=cluster.address, engines=2)

    class Killer(RunObserver):
        def __init__(self):
            self.count = 0

        def on_chain(self, arm, problem, sample):
            self.count += 1
            if self.count == 5:
                for pid in _actors(cluster):
                    os.kill(pid, signal.SIGKILL)
                    break

    killer = Killer()
    execute_run(asked, tmp_path / "run", killer)
    assert killer.count > 5
    assert chains(tmp_path / "run") == chains(tmp_path / "alone")
    pd.testing.assert_frame_equal(points(tmp_path / "run"), points(tmp_path / "alone"))
    assert len(read_faults(tmp_path / "run")) == 1


def _actors(cluster):
    """Processes of engines of this cluster: another test may have one of its own on this machine."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (folder / "cmdline").read_bytes().startswith(b"ray::RayActor"):
                yield int(folder.name)
        except OSError:
            continue


def test_a_checkpoint_that_a_node_lacks_is_told_with_its_name(pool, tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(ModelError, match=rf"on {os.uname().nodename}: the weights are broken"):
        list(pool(1).generate(requests("a"), Sampling()))


def test_a_cluster_that_is_not_there_is_told():
    from hyperscale.executors import ray as executor

    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(EngineError, match=f"no Ray cluster at {address}"):
            executor._check_address(address)
    for address in (None, "auto", "local"):
        executor._check_address(address)
