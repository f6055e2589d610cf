"""The sandbox from the graders' side: what goes in and comes out, how levels are chosen, how workers come and go."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hyperscale.errors import ConfigError, SandboxError
from hyperscale.scoring import code_runner, graders, sandbox, sandbox_level, sandbox_worker
from hyperscale.scoring.code_runner import CodeRunner, Limits, Outcome, Program

LEVELS = ["bwrap", "unshare", "guard", "none"]
SHORT = Limits(seconds=0.3, wall=0.6, memory=256 << 20)


@pytest.fixture(scope="module", params=LEVELS)
def runner(request):
    reason = sandbox.broken(request.param)
    if reason:
        pytest.skip(f"no {request.param} here: {reason}")
    runner = CodeRunner(sandbox=request.param, workers=2)
    yield runner
    runner.close()


@pytest.fixture
def guarded():
    runner = CodeRunner(sandbox="guard", workers=1)
    yield runner
    runner.close()


def one(runner, *arguments, **more):
    return runner.run_many([Program(*arguments, **more)])[0]


def test_a_function_gets_its_arguments_and_gives_json(runner):
    source = "def add(a, b=0): return (a + b, {'a': a}, None, 1.5, True)"
    assert one(runner, source, ((1, 2), (3,)), function="add") == [
        Outcome("ok", [3, {"a": 1}, None, 1.5, True]),
        Outcome("ok", [3, {"a": 3}, None, 1.5, True]),
    ]


def test_a_method_of_solution_is_found_before_a_function(runner):
    source = "class Solution:\n    def go(self, x): return [x]\ndef go(x): return x\ndef other(x): return -x"
    assert one(runner, source, ((1,),), function="go") == [Outcome("ok", [1])]
    assert one(runner, source, ((1,),), function="other") == [Outcome("ok", -1)]
    assert one(runner, source, ((1,),), function="none") == [Outcome("error")]


def test_a_whole_program_reads_and_writes_text(runner):
    source = "import sys\nif __name__ == '__main__':\n    n = int(input())\n    print(n + int(sys.stdin.read()))\n"
    source += "    print('é')"
    assert one(runner, source, ("3\n4\n", "5\n6"), kind="stdin") == [Outcome("ok", "7\né\n"), Outcome("ok", "11\né\n")]


def test_a_whole_program_may_leave_and_use_threads_and_exit_handlers(runner):
    source = """
    import atexit, sys
    atexit.register(lambda: print("bye"))
    print(input())
    sys.exit(0)
    """
    assert one(runner, textwrap.dedent(source), ("hi\n",), kind="stdin") == [Outcome("ok", "hi\nbye\n")]
    assert one(runner, "print(1)\n1 / 0", ("",), kind="stdin") == [Outcome("error")]


def test_threads_for_deep_recursion_work_behind_namespaces(runner):
    if runner.level() == "guard":
        pytest.skip("the guard allows no threads")
    source = """
    import sys, threading
    sys.setrecursionlimit(100000)
    threading.stack_size(64 << 20)
    def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
    threading.Thread(target=lambda: print(depth(int(input())))).start()
    """
    assert one(runner, textwrap.dedent(source), ("20000\n",), kind="stdin") == [Outcome("ok", "20000\n")]


def test_large_inputs_and_outputs_come_through(runner):
    text = "x" * 3_000_000
    limits = Limits(output=4_000_000)
    assert one(runner, "print(input())", (text,), kind="stdin", limits=limits) == [Outcome("ok", text + "\n")]
    assert one(runner, "def f(x): return x", ((text,),), limits=limits) == [Outcome("ok", text)]


def test_tests_do_not_meet_each_others_state(runner):
    assert one(runner, "seen = []\ndef f(x):\n    seen.append(x)\n    return seen", ((1,), (2,))) == [
        Outcome("ok", [1]),
        Outcome("ok", [2]),
    ]


def test_a_program_has_a_folder_that_the_next_finds_empty(runner):
    if runner.level() == "guard":
        pytest.skip("the guard allows no files")
    source = "import os\ndef f(x):\n    before = os.listdir('.')\n    open('note', 'w').write('n')\n    return before"
    assert one(runner, source, ((1,), (2,))) == [Outcome("ok", []), Outcome("ok", [])]


def test_every_test_has_its_own_status_and_the_rest_may_be_skipped(runner):
    source = "import os\ndef f(x):\n    while x == 2: pass\n    return 1 / x"
    tests = ((1,), (0,), (2,), (4,))
    statuses = [outcome.status for outcome in one(runner, source, tests, limits=SHORT)]
    assert statuses == ["ok", "error", "timeout", "ok"]
    short = one(runner, source, tests, limits=SHORT, stop_at_failure=True)
    assert [outcome.status for outcome in short] == ["ok", "error", "skipped", "skipped"]


def test_programs_come_back_in_order(runner):
    programs = [Program(f"def f(x): return x + {i}", ((1,),) * (i % 3)) for i in range(20)]
    assert runner.run_many(programs) == [[Outcome("ok", 1 + i)] * (i % 3) for i in range(20)]
    assert runner.run_many([]) == []


def test_the_order_of_sets_repeats():
    source = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})"
    found = []
    for _ in range(3):
        runner = CodeRunner(sandbox="guard", workers=1)
        found += one(runner, source, ((),))
        runner.close()
    assert found[0] == found[1] == found[2]


# Levels


@pytest.fixture
def nothing(monkeypatch):
    """A machine without bubblewrap and unshare."""
    monkeypatch.setattr(sandbox, "broken", lambda level: "not installed" if level in sandbox.STRONG else None)


def test_without_a_sandbox_programs_do_not_run(nothing):
    with pytest.raises(
        SandboxError, match=r"bwrap: not installed; unshare: not installed.*(install bubblewrap|sysctl|run on Linux)"
    ):
        CodeRunner().run_many([Program("def f(): return 1", ((),))])
    with pytest.raises(SandboxError, match="sandbox bwrap does not work here"):
        sandbox.choose("bwrap", trusted=True)


def test_without_a_sandbox_the_built_in_tasks_run_guarded_and_say_so_once(nothing, capsys):
    sandbox.tell.cache_clear()
    for _ in range(2):
        runner = CodeRunner(trusted=True, workers=1)
        assert runner.run_many([Program("def f(): return 1", ((),))]) == [[Outcome("ok", 1)]]
        runner.close()
    assert capsys.readouterr().err.count("limits and refusals only (no sandbox: bwrap: not installed") == 1


def test_no_sandbox_is_an_explicit_choice_with_a_warning(nothing):
    chosen = sandbox.choose("none")
    assert chosen.level == "none"
    assert "can read your files" in chosen.note


def test_an_unknown_sandbox_is_an_error():
    with pytest.raises(ConfigError, match="known: auto, bwrap, unshare, none"):
        sandbox.choose("docker")


def test_a_level_whose_program_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sandbox_level.shutil, "which", lambda _: None)
    monkeypatch.setattr(sandbox_level.sys, "platform", "linux")
    assert sandbox_level.missing("bwrap") == "bubblewrap is not installed"
    assert "apt-get install bubblewrap" in sandbox_level.advice()
    monkeypatch.setattr(sandbox_level.shutil, "which", lambda _: "/usr/bin/bwrap")
    assert "apt-get" not in sandbox_level.advice()
    assert "user namespaces: sysctl" in sandbox_level.advice()
    monkeypatch.setattr(sandbox_level.sys, "platform", "darwin")
    assert sandbox_level.missing("unshare") == "unshare needs Linux"


def test_a_level_that_the_system_refuses_says_why(monkeypatch):
    refusing = [sys.executable, "-c", "import sys; sys.exit('setting up uid map: Permission denied')"]
    monkeypatch.setattr(sandbox_level, "start", lambda *_: sandbox_level.Start(refusing, {}))
    monkeypatch.setattr(sandbox_level, "missing", lambda _: None)
    assert sandbox.broken.__wrapped__("unshare") == "setting up uid map: Permission denied"


def test_only_the_built_in_tasks_are_trusted(monkeypatch):
    asked = []
    monkeypatch.setattr(sandbox, "choose", lambda *arguments: asked.append(arguments) or sandbox.Sandbox("guard"))
    monkeypatch.setattr(code_runner, "_policy", ("auto", False))
    monkeypatch.setattr(code_runner, "_shared", {})
    running = graders.running_programs(["integer", "code", "choice"])
    assert code_runner.settle(running) == "guard"
    assert code_runner.settle(graders.running_programs(["code", "livecodebench"]), "bwrap") == "guard"
    assert code_runner.settle(graders.running_programs(["integer"])) is None
    assert asked == [("auto", True), ("bwrap", False)]


# Workers


def test_a_dead_worker_is_replaced(guarded):
    assert one(guarded, "def f(x): return x", ((1,),)) == [Outcome("ok", 1)]
    worker = guarded.take("guard")
    guarded.put_back(worker)
    os.kill(worker.pid, signal.SIGKILL)
    assert one(guarded, "def f(x): return x", ((2,),)) == [Outcome("ok", 2)]
    assert not worker.alive()


def test_a_stopped_worker_is_given_up_on(guarded, monkeypatch):
    monkeypatch.setattr(sandbox_worker, "_GRACE", 0.1)
    one(guarded, "def f(x): return x", ((1,),))
    worker = guarded.take("guard")
    guarded.put_back(worker)
    os.kill(worker.pid, signal.SIGSTOP)
    assert one(guarded, "def f(x): return x", ((2,),), limits=SHORT) == [Outcome("ok", 2)]
    assert not worker.alive()


def test_closing_removes_folders_and_processes(runner):
    fresh = CodeRunner(sandbox=runner.level(), workers=1)
    one(fresh, "def f(x): return x", ((1,),))
    worker = fresh.take(runner.level())
    folder = worker.folder
    assert folder.exists()
    fresh.put_back(worker)
    fresh.close()
    assert not folder.exists()
    assert not worker.alive()


def test_programs_do_not_outlive_the_process_that_asked_for_them(runner, tmp_path):
    """The parent is killed while a program sleeps; the worker and the program go with it."""
    parent = f"""
    import os
    from hyperscale.scoring.code_runner import *
    runner = CodeRunner(sandbox={runner.level()!r}, workers=1)
    runner.run_many([Program("def f(x): return x", ((1,),))])
    worker = runner.take({runner.level()!r})
    print(worker.pid, flush=True)
    runner.put_back(worker)
    runner.run_many([Program("import time\\ntime.sleep(50)", ((1,),), limits=Limits(wall=50))])
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    group = int(process.stdout.readline())
    time.sleep(0.3)
    assert members(group)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not members(group)


def members(group):
    """Processes of a process group that are not zombies."""
    found = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [row for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


def test_the_worker_imports_nothing_else_of_ours():
    folder = Path(sandbox.__file__).with_name("sandbox_child")
    for path in folder.glob("*.py"):
        assert "from hyperscale" not in path.read_text()
        assert "import hyperscale" not in path.read_text()


def test_a_thousand_tests_take_seconds(runner):
    programs = [Program("def f(x): return x + 1", tuple((i,) for i in range(10))) for _ in range(30)]
    start = time.monotonic()
    assert runner.run_many(programs) == [[Outcome("ok", i + 1) for i in range(10)]] * 30
    assert time.monotonic() - start < 10  # measured: about 1 s; the slack is for busy machines
