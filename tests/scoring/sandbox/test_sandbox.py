"""The sandbox from the graders' side: what goes in and comes out, how levels are chosen, how workers come and go."""

import sys
import textwrap

import hostile
import pytest
from repository import ROOT
from sandboxes import SHORT, one, runner_at

from hyperscale import models
from hyperscale.errors import ConfigError, SandboxError
from hyperscale.scoring import graders
from hyperscale.scoring.sandbox import choose, levels, pool
from hyperscale.scoring.sandbox.levels import LEVELS
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Limits, Outcome, Program


@pytest.fixture(scope="module", params=LEVELS)
def runner(request):
    with runner_at(request.param, workers=2) as runner:
        yield runner


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
    if runner.choose_level() == "guard":
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
    if runner.choose_level() == "guard":
        pytest.skip("the guard allows no files")
    source = "import os\ndef f(x):\n    before = os.listdir('.')\n    open('note', 'w').write('n')\n    return before"
    assert one(runner, source, ((1,), (2,))) == [Outcome("ok", []), Outcome("ok", [])]


def test_a_folder_tells_nothing_of_the_test_before(runner):
    """Neither by its times nor by its attributes; its number in the file system is its own."""
    if runner.choose_level() in ("guard", "none"):
        pytest.skip("the guard allows no files; at none a program can leave what it likes")
    source = """
    import os
    def f(x):
        seen = os.stat(".")
        try: names = os.listxattr(".")
        except OSError: names = []
        times, mark = lambda: os.utime(".", (x, x)), lambda: os.setxattr(".", "user.x", b"x")
        for attempt in (times, mark, lambda: os.chmod(".", 0o700)):
            try: attempt()
            except OSError: pass
        return [seen.st_atime, seen.st_mtime, oct(seen.st_mode), names]
    """
    outcomes = one(runner, textwrap.dedent(source), ((0,), (1000,), (2000,), (3000,)))
    assert [outcome.status for outcome in outcomes] == ["ok"] * 4
    assert outcomes[1] == outcomes[2] == outcomes[3]


def test_a_test_may_write_more_where_more_is_expected(runner):
    source = "def f(x): return 'x' * x"
    program = Program(source, ((90,), (900,), (900,)), limits=Limits(output=100), outputs=(0, 1000, 100))
    assert [outcome.status for outcome in runner.run_many([program])[0]] == ["ok", "ok", "output"]


def test_integers_of_any_length_that_a_program_may_write_are_read(runner):
    source = "import sys\nsys.set_int_max_str_digits(0)\ndef f(n): return [-10 ** n - 1, 10 ** n]"
    (outcome,) = one(runner, source, ((30_000,),))
    assert outcome == Outcome("ok", [-(10**30_000) - 1, 10**30_000])
    assert one(runner, source, ((60_000,),)) == [Outcome("error")]


def test_a_whole_program_may_close_its_output(runner):
    source = "import sys\nprint(input())\nsys.stdout.close()"
    assert one(runner, source, ("hi\n",), kind="stdin") == [Outcome("ok", "hi\n")]


_OUTPUTS = {
    "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint(input())": "é\n",
    "sys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8')\nprint(input())": "é\n",
    "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), write_through=True)\nprint(input())": "é\n",
    "class A: pass\nA.out = open(1, 'w')\nA.out.write(input())": "é",
    "out = [os.fdopen(1, 'wb', 1 << 20)]\nout[0].write(input().encode())": "é",
    "out = [open('/dev/stdout', 'w')]\nout[0].write(input())": "é",
    "print(input())\nsys.stdout = None": "é\n",
    "print(sys.stdin.readline(), end='')\nsys.stdin.seek(0)\nprint(sys.stdin.read(), end='')": "é\né\n",
    "print(sys.stdin.name, sys.stdout.name, sys.stdout.seekable())": "<stdin> <stdout> False\n",
    "print = __builtins__.print\nprint(input())": "é\n",
}


@pytest.mark.parametrize("source", _OUTPUTS)
def test_a_whole_program_may_use_its_input_and_output_in_any_way(runner, source):
    source_with_imports = f"import io, os, sys\n{source}"
    assert one(runner, source_with_imports, ("é\n",), kind="stdin") == [Outcome("ok", _OUTPUTS[source])]


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
    monkeypatch.setattr(choose, "find_fault", lambda level: "not installed" if level in choose.STRONG else None)


def test_without_a_sandbox_programs_do_not_run(nothing):
    with pytest.raises(
        SandboxError, match=r"bwrap: not installed; unshare: not installed.*(install bubblewrap|sysctl|run on Linux)"
    ):
        CodeRunner().run_many([Program("def f(): return 1", ((),))])
    with pytest.raises(SandboxError, match="sandbox bwrap does not work here"):
        choose.choose_level("bwrap", trusted=True)


def test_without_a_sandbox_the_built_in_tasks_run_guarded_and_say_so_once(nothing, capsys):
    choose.print_note_once.cache_clear()
    for _ in range(2):
        runner = CodeRunner(trusted=True, workers=1)
        assert runner.run_many([Program("def f(): return 1", ((),))]) == [[Outcome("ok", 1)]]
        runner.close()
    assert capsys.readouterr().err.count("limits and refusals only (no sandbox: bwrap: not installed") == 1


def test_no_sandbox_is_an_explicit_choice_with_a_warning(nothing):
    chosen = choose.choose_level("none")
    assert chosen.level == "none"
    assert "can read your files" in chosen.note


def test_an_unknown_sandbox_is_an_error():
    with pytest.raises(ConfigError, match="known: auto, bwrap, unshare, none"):
        choose.choose_level("docker")


def test_a_level_whose_program_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(levels.shutil, "which", lambda _: None)
    monkeypatch.setattr(levels.sys, "platform", "linux")
    assert levels.missing_requirement("bwrap") == "bubblewrap is not installed"
    assert "apt-get install bubblewrap" in levels.advice()
    monkeypatch.setattr(levels.shutil, "which", lambda _: "/usr/bin/bwrap")
    assert "apt-get" not in levels.advice()
    assert "user namespaces: sysctl" in levels.advice()
    monkeypatch.setattr(levels.sys, "platform", "darwin")
    assert levels.missing_requirement("unshare") == "unshare needs Linux"


def test_a_level_that_the_system_refuses_says_why(monkeypatch):
    refusing = [sys.executable, "-c", "import sys; sys.exit('setting up uid map: Permission denied')"]
    monkeypatch.setattr(levels, "worker_command", lambda *_: levels.WorkerCommand(refusing, {}))
    monkeypatch.setattr(levels, "missing_requirement", lambda _: None)
    assert choose.find_fault.__wrapped__("unshare") == "setting up uid map: Permission denied"


def test_only_the_built_in_model_is_trusted_and_on_its_own_tasks(monkeypatch):
    asked = []
    monkeypatch.setattr(choose, "choose_level", lambda *arguments: asked.append(arguments) or choose.Sandbox("guard"))
    monkeypatch.setattr(pool, "_policy", ("auto", False))
    monkeypatch.setattr(pool, "_runners", {})
    own = graders.select_program_graders(["integer", "code", "choice"])
    public = graders.select_program_graders(["code", "livecodebench"])
    assert pool.choose_shared_level(own, built_in_model=True) == "guard"
    assert pool.choose_shared_level(own) == "guard"  # as the stand-in says; what counts is what was asked for
    assert pool.choose_shared_level(public, "bwrap", built_in_model=True) == "guard"
    assert pool.choose_shared_level(graders.select_program_graders(["integer"])) is None
    assert asked == [("auto", True), ("auto", False), ("bwrap", False)]


def test_the_built_in_model_is_known_by_its_weights():
    assert models.is_built_in("mini")
    assert not any(map(models.is_built_in, ["qwen-r1-1.5b", "owner/mini", "./mini", "unknown"]))


def test_the_docs_say_how_many_hostile_programs_are_tried():
    lines = (ROOT / "docs/sandbox.md").read_text().splitlines()
    for row in hostile.count_cases():
        assert f"| {' | '.join(map(str, row))} |" in lines
