"""How workers come and go, and how fast they are."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from repository import ROOT
from sandboxes import SHORT, one, runner_at

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox import worker as sandbox_worker
from hyperscale.scoring.sandbox.levels import LEVELS
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Limits, Outcome, Program
from hyperscale.scoring.sandbox.worker import OpenProgram, SandboxWorker


@pytest.fixture(scope="module", params=LEVELS)
def runner(request):
    with runner_at(request.param, workers=2) as runner:
        yield runner


@pytest.fixture
def guarded():
    runner = CodeRunner(sandbox="guard", workers=1)
    yield runner
    runner.close()


def test_a_dead_worker_is_replaced(guarded):
    assert one(guarded, "def f(x): return x", ((1,),)) == [Outcome("ok", 1)]
    worker = guarded.take_worker("guard")
    guarded.return_worker(worker)
    os.kill(worker.pid, signal.SIGKILL)
    assert one(guarded, "def f(x): return x", ((2,),)) == [Outcome("ok", 2)]
    assert not worker.alive()


def test_a_stopped_worker_is_given_up_on(guarded, monkeypatch):
    monkeypatch.setattr(sandbox_worker, "_GRACE", 0.1)
    one(guarded, "def f(x): return x", ((1,),))
    worker = guarded.take_worker("guard")
    guarded.return_worker(worker)
    os.kill(worker.pid, signal.SIGSTOP)
    assert one(guarded, "def f(x): return x", ((2,),), limits=SHORT) == [Outcome("ok", 2)]
    assert not worker.alive()


def test_an_interrupted_test_leaves_no_reply_to_the_next(runner, monkeypatch):
    """Ctrl-C in a notebook, while a program runs."""
    assert one(runner, "def f(x): return x", ((1,),)) == [Outcome("ok", 1)]
    interrupted = []

    def interrupt(worker, *_):
        interrupted.append(worker)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SandboxWorker, "_watch", interrupt)  # the program has been sent
        with pytest.raises(KeyboardInterrupt):
            one(runner, "import time\ndef f(x): time.sleep(50)", ((1,),), limits=Limits(wall=50))
    (worker,) = interrupted
    assert one(runner, "def f(x): return x", ((2,), (3,))) == [Outcome("ok", 2), Outcome("ok", 3)]
    assert not worker.alive()
    assert not worker.folder.exists()
    assert not members(worker.pid)


def test_a_worker_that_owes_a_reply_takes_no_test(monkeypatch):
    """However it was interrupted: the pool asks before it gives a worker to another program."""

    def interrupt(*_):
        raise KeyboardInterrupt

    program = Program("def f(x): return x", ((1,),))
    with contextlib.closing(SandboxWorker("none")) as worker, contextlib.closing(OpenProgram(program)) as opened:
        assert worker.run_test(opened, 0) == ("ok", b"1")
        assert worker.alive()
        monkeypatch.setattr(worker, "_watch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.run_test(opened, 0)
        assert not worker.alive()


def test_an_interrupted_start_leaves_nothing(monkeypatch):
    started = []

    def interrupt(worker, *_):
        started.append(worker)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SandboxWorker, "_read_reply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            SandboxWorker("none")
    (worker,) = started
    assert not worker.folder.exists()
    assert not members(worker.pid)


def test_closing_removes_folders_and_processes(runner):
    fresh = CodeRunner(sandbox=runner.choose_level(), workers=1)
    one(fresh, "def f(x): return x", ((1,),))
    worker = fresh.take_worker(runner.choose_level())
    folder = worker.folder
    assert folder.exists()
    fresh.return_worker(worker)
    fresh.close()
    assert not folder.exists()
    assert not worker.alive()


def test_programs_do_not_outlive_the_process_that_asked_for_them(runner, tmp_path):
    """The parent is killed while a program sleeps; the worker and the program go with it."""
    parent = f"""
    import os
    from hyperscale.scoring.sandbox.pool import *
    runner = CodeRunner(sandbox={runner.choose_level()!r}, workers=1)
    runner.run_many([Program("def f(x): return x", ((1,),))])
    worker = runner.take_worker({runner.choose_level()!r})
    print(worker.pid, flush=True)
    runner.return_worker(worker)
    runner.run_many([Program("import time\\ntime.sleep(50)", ((1,),), limits=Limits(wall=50))])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, cwd=ROOT)
    group = int(process.stdout.readline())
    time.sleep(0.3)
    assert members(group)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not members(group)


def test_what_programs_are_forked_from_has_no_capabilities(runner):
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    one(runner, "def f(x): return x", ((1,),))
    worker = runner.take_worker(runner.choose_level())
    try:
        origin = worker.pid
        while below := subprocess.run(["pgrep", "-P", str(origin)], capture_output=True, text=True, check=False).stdout:
            origin = int(below.split()[0])
        status = dict(re.findall(r"^(\w+):\s+(\S+)", Path(f"/proc/{origin}/status").read_text(), re.MULTILINE))
    finally:
        runner.return_worker(worker)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
    assert status["NoNewPrivs"] == "1"


def members(group):
    """Processes of a process group that are not zombies."""
    found = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [row for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


def test_the_worker_imports_nothing_else_of_ours():
    folder = Path(choose.__file__).with_name("child")
    for path in folder.glob("*.py"):
        assert "from hyperscale" not in path.read_text()
        assert "import hyperscale" not in path.read_text()


def test_hundreds_of_tests_start_no_worker_of_their_own(runner):
    """Starting one takes 0.2 s, the tests a second."""
    programs = [Program("def f(x): return x + 1", tuple((i,) for i in range(10))) for _ in range(30)]
    before = runner._started
    assert runner.run_many(programs) == [[Outcome("ok", i + 1) for i in range(10)]] * 30
    assert runner._started - before <= runner.workers
