import pytest
from sandboxes import one

from hyperscale.errors import TaskError
from hyperscale.scoring.graders.code import CodeGrader, FailedTest
from hyperscale.scoring.sandbox.pool import CodeRunner
from hyperscale.scoring.sandbox.program import Outcome

SORT_DOWN = "def f(x):\n    x = sorted(x)\n    x = x[::-1]\n    return x\n"
TESTS = [{"input": [3, 1, 2], "output": [3, 2, 1]}, {"input": [5, 9], "output": [9, 5]}]


@pytest.fixture(scope="module")
def runner():
    runner = CodeRunner(seconds=0.5, trusted=True)
    yield runner
    runner.close()


@pytest.fixture
def grader(runner):
    return CodeGrader(runner)


def test_the_last_fenced_block_after_the_thinking_is_the_program(grader):
    text = f"```python\nwrong\n```</think>first\n```python\nx\n```\nthen\n```python\n{SORT_DOWN}```\nbye"
    assert grader.extract(text) == SORT_DOWN
    assert grader.extract(f"</think>```python\n{SORT_DOWN}```") == SORT_DOWN
    assert grader.extract(f"</think>```python\n{SORT_DOWN}") is None
    assert grader.extract(f"<think>```python\n{SORT_DOWN}```") is None
    assert grader.extract(f"```python\n{SORT_DOWN}```") == SORT_DOWN  # no thinking was opened
    assert grader.extract(f"</think>```\n{SORT_DOWN}```") is None


RIGHT = [
    SORT_DOWN,
    "from collections import Counter\nimport math, itertools\ndef f(x): return sorted(x, reverse=True)",
    "def f(x):\n    print('noise')\n    return tuple(sorted(x, reverse=True))",
    "def f(x):\n    x.sort(reverse=True)\n    return x",
]

# What must not earn a point. Nothing here may take the grader, or a later program, down either.
WRONG = {
    "wrong value": "def f(x): return x",
    "only the first test": "def f(x): return [3, 2, 1]",
    "no function": "g = 1",
    "syntax error": "def f(x: return",
    "exception": "def f(x): return 1 / 0",
    "system exit": "raise SystemExit(0)",
    "leaves before the check": "import os\nos._exit(0)",
    "not json": "def f(x): return {1, 2}",
    "endless loop": "while True: pass",
    "endless loop in f": "def f(x):\n    while True: pass",
    "sleep": "import time\ntime.sleep(60)",
    "endless recursion": "def f(x): return f(x)",
    "memory": "def f(x): return [0] * 10**11",
    "huge output": "def f(x): return 'a' * 10**8",
    "huge integer": "def f(x): return 10**100000",
    "deep nesting": "def f(x):\n    for _ in range(900): x = [x]\n    return x",
    "forged result": "import os\nos.write(3, b'[[[[')\nos._exit(0)",
    "forged results of the wrong kind": "import os\nos.write(3, b'[1, true]')\nos._exit(0)",
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "forks": f"import os\nos.fork()\n{SORT_DOWN}",
}


@pytest.mark.parametrize("program", RIGHT)
def test_a_program_that_passes_every_test_is_correct(grader, program):
    assert grader.correct(program, TESTS) is True


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.timeout(60)
def test_a_program_that_does_not_is_wrong_and_harms_nothing(grader, name):
    assert grader.correct_many([(WRONG[name], TESTS), (SORT_DOWN + f"# {name}", TESTS)]) == [False, True]


def test_types_of_outputs_count(grader):
    one = [{"input": 0, "output": 1}]
    assert [grader.correct(f"def f(x): return {value}", one) for value in ("1", "1.0", "True", "'1'")] == [
        True,
        False,
        False,
        False,
    ]


def test_programs_do_not_see_each_other(grader):
    poison = "import builtins, json\nbuiltins.sorted = lambda x: [0]\njson.dumps = None\nf = lambda x: x"
    assert grader.correct_many([(poison, TESTS), (SORT_DOWN + "# after poison", TESTS)]) == [False, True]


def test_programs_see_no_expected_outputs_and_no_environment(monkeypatch):
    monkeypatch.setenv("HYPERSCALE_SECRET", "1")
    fresh = CodeRunner(seconds=1.0, trusted=True)
    try:
        program = "import os, sys\ndef f(x): return [dict(os.environ), sys.path_importer_cache.get('') is None]"
        (outcome,) = one(fresh, program, ((0,),))
        assert outcome.status == "ok"
        assert "HYPERSCALE_SECRET" not in str(outcome.output)
        frames = "import sys\ndef f(x):\n    g = sys._getframe(1)\n    return str(g.f_locals)"
        (outcome,) = one(fresh, frames, (([71, 72],),))
        assert "71" in str(outcome.output)  # the inputs are there to be found; outputs are never sent
    finally:
        fresh.close()


def test_no_file_is_written(grader, tmp_path):
    target = tmp_path / "mark"
    program = f"open({str(target)!r}, 'w').write('x')\n{SORT_DOWN}"
    assert not grader.correct(program, TESTS)
    assert not target.exists()


@pytest.mark.timeout(60)
def test_hundreds_of_programs(grader):
    assert all(grader.correct_many([(f"{SORT_DOWN}# {i}", TESTS) for i in range(200)]))


def test_equal_programs_run_once(runner, monkeypatch):
    grader = CodeGrader(runner)
    asked = []
    monkeypatch.setattr(
        runner, "run_many", lambda jobs: asked.extend(jobs) or [[Outcome("error")] * len(job.tests) for job in jobs]
    )
    assert grader.correct_many([("a", TESTS), ("a", TESTS), ("b", TESTS)]) == [False] * 3
    assert grader.correct("a", TESTS) is False
    assert [program.source for program in asked] == ["a", "b"]


@pytest.mark.parametrize("target", [None, [], "7", [{"input": 1}]])
def test_a_malformed_target_is_an_error(grader, target):
    with pytest.raises(TaskError, match="non-empty list"):
        grader.correct(SORT_DOWN, target)


def test_the_first_failed_test_is_told_with_what_came_of_it(grader):
    up = "def f(x):\n    return sorted(x)"
    late = "def f(x):\n    return sorted(x, reverse=True) if len(x) > 2 else 'two\\n'"
    broken = "def f(x):\n    raise ValueError"
    target = [*TESTS, {"input": [1], "output": [1]}]
    programs = (SORT_DOWN, up, late, broken, "def g(x): pass")
    right, first, second, error, missing = grader.find_failures([(program, target) for program in programs])
    assert right is None
    assert first == FailedTest(1, 3, [3, 1, 2], [3, 2, 1], [1, 2, 3], "wrong")
    assert second == FailedTest(2, 3, [5, 9], [9, 5], "two\n", "wrong")
    assert error == missing == FailedTest(1, 3, [3, 1, 2], [3, 2, 1], None, "error")
