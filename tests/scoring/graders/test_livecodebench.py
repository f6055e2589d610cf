import base64
import contextlib
import json
import pickle
import pickletools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandboxes import verdicts_of

from hyperscale.errors import TaskError
from hyperscale.scoring import graders
from hyperscale.scoring.graders import livecodebench_tests, restricted_pickle
from hyperscale.scoring.graders.livecodebench import LiveCodeBenchGrader
from hyperscale.scoring.graders.output_match import identical_value, same_text, same_value
from hyperscale.scoring.sandbox.pool import CodeRunner


def packed(cases, protocol=4):
    """Private tests as the data set has them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases), protocol))).decode()


def row(public, private, function=None, **more):
    kind = "functional" if function else "stdin"
    cases = [[{"input": i, "output": o, "testtype": kind} for i, o in part] for part in (public, private)]
    meta = {"func_name": function} if function else {}
    texts = {"public_test_cases": json.dumps(cases[0]), "private_test_cases": packed(cases[1])}
    return {"question_id": "q", **texts, "metadata": json.dumps(meta), **more}


SUM = row([("3\n1 2 3\n", "6\n")], [("1\n5\n", "5\n"), ("2\n-1 1\n", "0")])
PAIRS = row([("[1, 2]\n3", "[[1, 3], [2, 3]]")], [("[]\n0", "[]"), ("[7]\n-1", "[[7, -1]]")], "pairs")


# Data


def test_tests_are_read_from_the_data_sets_format():
    tests = livecodebench_tests.read_tests(livecodebench_tests.make_target(SUM))
    assert (tests.kind, tests.function) == ("stdin", None)
    assert tests.inputs == ("3\n1 2 3\n", "1\n5\n", "2\n-1 1\n")
    assert tests.outputs == ("6\n", "5\n", "0")
    tests = livecodebench_tests.read_tests(livecodebench_tests.make_target(PAIRS))
    assert (tests.kind, tests.function) == ("functional", "pairs")
    assert tests.inputs == ([[1, 2], 3], [[], 0], [[7], -1])
    assert tests.outputs == ([[1, 3], [2, 3]], [], [[7, -1]])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_private_tests_may_be_json_or_a_pickle_of_any_protocol(protocol):
    cases = [{"input": "é\n", "output": "1", "testtype": "stdin"}]
    for private in (json.dumps(cases), packed(cases, protocol)):
        tests = livecodebench_tests.read_tests(livecodebench_tests.make_target({**SUM, "private_test_cases": private}))
        assert tests.inputs[1:] == ("é\n",)


@pytest.mark.parametrize(
    "change",
    [
        {"private_test_cases": "not base64!"},
        {"private_test_cases": base64.b64encode(b"not zlib").decode()},
        {"private_test_cases": base64.b64encode(zlib.compress(b"not a pickle")).decode()},
        {"private_test_cases": packed([{"input": "1"}])},
        {"public_test_cases": "[", "private_test_cases": "[]"},
        {"public_test_cases": "[]", "private_test_cases": "[]"},
        {"public_test_cases": "7"},
        {"metadata": "{"},
        {"metadata": '{"func_name": "f"}'},  # the inputs are no JSON lines
    ],
)
def test_corrupt_data_are_one_clear_error(change):
    with pytest.raises(TaskError, match="LiveCodeBench problem's tests cannot be read") as caught:
        livecodebench_tests.read_tests(livecodebench_tests.make_target({**SUM, **change}))
    assert "\n" not in str(caught.value)


def test_data_of_another_format_are_an_error():
    with pytest.raises(TaskError, match="lacks the text 'metadata'"):
        livecodebench_tests.make_target({name: SUM[name] for name in livecodebench_tests.FIELDS if name != "metadata"})
    for target in (None, [], {}, "x"):
        with pytest.raises(TaskError, match="holds the texts"):
            livecodebench_tests.read_tests(target)


def test_tests_that_unpack_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(livecodebench_tests, "MAX_BYTES", 1000)
    bomb = base64.b64encode(zlib.compress(b"\0" * 10**6)).decode()
    with pytest.raises(TaskError, match="unpack to more than"):
        livecodebench_tests.read_tests(livecodebench_tests.make_target({**SUM, "private_test_cases": bomb}))


def test_known_broken_problems():
    assert len(livecodebench_tests.BROKEN) == 17
    for name in ("abc343_a", "arc185_c", "arc189_a", "Most Frequent IDs", "Apply Operations to Make String Empty"):
        assert livecodebench_tests.is_broken({"question_id": name} if "_" in name else {"question_title": name})
    assert livecodebench_tests.is_broken({"question_id": "abc350_c"})
    assert livecodebench_tests.is_broken({"question_id": "3271", "question_title": "Find the Peaks"})
    assert not livecodebench_tests.is_broken(SUM)


# Pickles


class _Runs:
    def __reduce__(self):
        return (print, ("run",))


def _global(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


HOSTILE = {
    "calls a function": pickle.dumps(_Runs()),
    "os.system": _global("os", "system") + b"(S'true'\ntR.",
    "eval by INST": b"(S'1'\ni__builtin__\neval\n.",
    "eval by OBJ": b"(" + _global("builtins", "eval") + b"S'1'\no.",
    "stack global": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
    "a class alone": pickle.dumps(print),
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"Pfile\n.",
    "builds state": b"\x80\x02}}b.",
    "a set": pickle.dumps({1}),
    "bytes": pickle.dumps(b"text"),
    "bytearray": pickle.dumps(bytearray(b"text"), 5),
    "a float": pickle.dumps(0.5),
    "a number": pickle.dumps(10**20),
    "a huge memo index": b"\x80\x02X\x01\x00\x00\x00ar\xff\xff\xff\x7f.",
    "a long string that is not there": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "empty": b"",
    "cut off": pickle.dumps("text")[:-3],
    "no memo entry": b"\x80\x02h\x05.",
    "empty stack": b"\x80\x02.",
    "unhashable key": b"\x80\x02}]]s.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_of_anything_but_strings_and_containers_is_refused_unbuilt(name, capsys, monkeypatch):
    looked_up = []
    monkeypatch.setattr(restricted_pickle._Unpickler, "find_class", lambda *a: looked_up.append(a))
    with pytest.raises(ValueError):
        restricted_pickle.loads(HOSTILE[name])
    assert not looked_up
    assert capsys.readouterr().out == ""


def test_the_second_lock_holds_alone(monkeypatch):
    monkeypatch.setattr(restricted_pickle, "_ALLOWED", {op.name for op in pickletools.opcodes})
    for name in ("calls a function", "os.system", "eval by INST", "stack global", "a persistent id"):
        with pytest.raises(ValueError):
            restricted_pickle.loads(HOSTILE[name])


@settings(max_examples=40)
@given(
    st.recursive(
        st.text(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_strings_and_containers_come_back(value, protocol):
    assert restricted_pickle.loads(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=80))
def test_any_bytes_give_a_value_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        restricted_pickle.loads(data)


# Comparison

TEXTS = [
    ("6", "6\n", True),
    ("  6  \n\n", "6", True),
    ("1 2\r\n3", "1 2\n3", True),
    ("1\n2", "1 2", False),
    ("1\n\n2", "1\n2", False),
    ("1  2", "1 2", True),  # numbers, token by token
    ("a  b", "a b", False),  # text, to the letter
    ("1.50", "1.5", True),
    ("1e3 0.10", "1000 .1", True),
    ("0.3333333", "0.33333333", False),
    ("50000000000000001", "50000000000000000", False),
    ("-0", "0", True),
    ("007", "7", True),
    ("Yes", "YES", False),
    ("1 x", "1.0 x", False),
    ("1 2 3", "1 2", False),
    ("nan", "nan", True),
    ("NaN", "nan", False),
    ("sNaN", "1", False),
    ("1e999999999999999999", "1", False),
    ("", "", True),
    ("", "0", False),
]


@pytest.mark.parametrize(("output", "expected", "verdict"), TEXTS)
def test_standard_output_is_compared_as_livecodebench_does(output, expected, verdict):
    assert same_text(output, expected) is verdict


def test_values():
    pairs = [(1, 1.0), (True, 1), ([1, [2]], [1, [2]]), ({"a": [1]}, {"a": [1]}), (0.1 + 0.2, 0.3), ("1", 1), (None, 0)]
    assert [same_value(*pair) for pair in pairs] == [True, True, True, True, False, False, False]
    assert [identical_value(*pair) for pair in pairs] == [False, False, True, True, False, False, False]


# The grader


@pytest.fixture(scope="module")
def runner():
    runner = CodeRunner(workers=2)
    yield runner
    runner.close()


@pytest.fixture
def grader(runner):
    return LiveCodeBenchGrader(runner)


STDIN = {
    "n = int(input())\nprint(sum(map(int, input().split())))": True,
    "import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))": True,
    "print(sum(map(int, open(0).read().split()[1:])))": True,
    "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.read().split()[1:]))) + '.0\\n\\n')": True,
    "def main():\n    input()\n    print(sum(map(int, input().split())))\n    exit()\n"
    "if __name__ == '__main__':\n    main()": True,
    "input()\nprint(reduce(add, map(int, input().split())))": True,  # names LiveCodeBench gives
    "from __future__ import annotations\ninput()\nprint(sum(map(int, input().split())))": True,
    "input()\nprint(sum(map(int, input().split())))\nquit()": True,
    "import sys\nprint(sum(map(int, open('/dev/stdin').read().split()[1:])))\nexit(0)": True,
    "import sys\nsys.stdin = open('/dev/stdin', 'r')\ninput()\nprint(sum(map(int, input().split())))": True,
    "open('/dev/stdout')": False,
    "print(6)": False,
    "print('6', end=''); 1 / 0": False,
    "def main(): print(6)": False,
}


@pytest.mark.parametrize("program", STDIN)
def test_whole_programs(grader, program):
    assert grader.correct(program, livecodebench_tests.make_target(SUM)) is STDIN[program]


def test_half_of_a_character_in_the_data_is_no_fault(grader):
    target = livecodebench_tests.make_target(row([("\ud83d\n", "6"), ("1\n", "\ud83d")], []))
    assert verdicts_of(grader, "print(6)", target) == ["pass", "wrong"]


FUNCTIONS = {
    "class Solution:\n    def pairs(self, a: List[int], b: int) -> List[List[int]]:\n"
    "        return [[x, b] for x in a]": True,
    "class Solution:\n    def pairs(self, a, b):\n        return tuple((x, b) for x in a)": True,
    "def pairs(a, b):\n    print('noise')\n    return [[x, b] for x in a]": True,
    "class Solution:\n    def pairs(self, a, b):\n        return [[b, x] for x in a]": False,
    "class Solution:\n    def other(self, a, b):\n        return [[x, b] for x in a]": False,
    "class Solution:\n    def pairs(self, a):\n        return [[x, 3] for x in a]": False,
    "class Solution:\n    def pairs(self, a, b):\n        return ([x, b] for x in a)": False,
}


@pytest.mark.parametrize("program", FUNCTIONS)
def test_functions(grader, program):
    assert grader.correct(program, livecodebench_tests.make_target(PAIRS)) is FUNCTIONS[program]


def test_every_test_has_its_verdict(grader):
    program = "n = int(input())\nif n == 1: 1 / 0\nif n == 2: print('x' * 10**8)\nprint(sum(map(int, input().split())))"
    assert verdicts_of(grader, program, livecodebench_tests.make_target(SUM)) == ["pass", "error", "output"]
    assert verdicts_of(grader, "print(5)", livecodebench_tests.make_target(SUM)) == ["wrong", "pass", "wrong"]


def test_each_test_has_its_own_time_and_memory(runner, monkeypatch):
    monkeypatch.setattr(LiveCodeBenchGrader, "limits", LiveCodeBenchGrader.limits.__class__(0.5, 3.0, 256 << 20))
    program = "n = int(input())\nif n == 3:\n    while True: pass\nif n == 1: x = [0] * 10**9\nprint(0)"
    verdicts = verdicts_of(LiveCodeBenchGrader(runner), program, livecodebench_tests.make_target(SUM))
    assert verdicts == ["timeout", "memory", "pass"]


def test_expected_outputs_never_reach_a_program(runner, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "run_many", lambda programs: seen.extend(programs) or [[]] * len(programs))
    secret = row([("1", "SECRET")], [("2", "SECRET")])
    with pytest.raises(ValueError):
        LiveCodeBenchGrader(runner).correct("print(1)", livecodebench_tests.make_target(secret))
    assert [program.tests for program in seen] == [("1", "2")]
    assert "SECRET" not in str(seen)


def test_a_failed_program_runs_no_further(runner, monkeypatch):
    asked = []
    real = runner.run_many
    monkeypatch.setattr(runner, "run_many", lambda programs: asked.extend(programs) or real(programs))
    many = row([("1", "1")], [("1", "1")] * 20)
    grader = LiveCodeBenchGrader(runner)
    assert grader.correct_many(
        [(p, livecodebench_tests.make_target(many)) for p in ("print(2)", "print(1)", "print(2)")]
    ) == [
        False,
        True,
        False,
    ]
    assert [len(program.tests) for program in asked] == [4, 4, 17]


BLOCK = "```python\nprint(1)\n```"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"x</think>{BLOCK}", "print(1)\n"),
        ("x</think>```python\nprint(0)\n```\n" + BLOCK, "print(1)\n"),
        ("x</think>```\nprint(1)\n```", "print(1)\n"),
        (f"x</think>```\nno\n```\n{BLOCK}\nprints\n```\n1\n```", "print(1)\n"),
        ("x</think>```cpp\nint main() {}\n```", None),
        ("x</think>```cpp\nint x;\n```\n```\nprint(1)\n```", "print(1)\n"),
        ("x</think>```python\nprint(1)", None),
        (f"<think>x\n{BLOCK}", None),
        (f"x\n{BLOCK}", "print(1)\n"),  # no thinking was opened
        (f"x{BLOCK}</think>no program", None),
    ],
)
def test_the_program_is_the_last_python_block_or_the_last_bare_one(text, program):
    assert graders.get("livecodebench").extract(text) == program
