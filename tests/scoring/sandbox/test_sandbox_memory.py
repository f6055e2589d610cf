"""What a program can find in memory: itself and its own input, never another program, another input or an output."""

import json
import secrets

import pytest
from hostile.memory import SEARCH
from sandboxes import one, runner_at

from hyperscale.scoring.graders import livecodebench_tests
from hyperscale.scoring.graders.code import CodeGrader
from hyperscale.scoring.graders.livecodebench import LiveCodeBenchGrader
from hyperscale.scoring.sandbox.levels import LEVELS
from hyperscale.scoring.sandbox.program import Limits, Outcome

PATIENT = Limits(seconds=10.0, wall=20.0)
TRY = "import os, sys\n"


@pytest.fixture(scope="module", params=LEVELS)
def runner(request):
    with runner_at(request.param, workers=1) as runner:
        yield runner


THIEF = rb"""
def stolen(x):
    # The table as it stands in a program, or escaped, as it stands in a message.
    found = search(rb'0[^0-9a-z{}]{3,9}[0-9a-f]{16}[^{}]*?5[^0-9a-z{}]{3,9}[0-9a-f]{16}')
    return dict(re.findall("([0-5])[^0-9a-z]+([0-9a-f]{16})", found[0]))[x]
""".decode()


def problem(kind):
    """Tests that nobody can guess, a right program of ordinary length, and one that looks for the right one."""
    answers = {str(n): secrets.token_hex(8) for n in range(6)}
    if kind == "functional":
        right = f"def f(x):\n    answers = {json.dumps(answers)}\n    return answers[x]\n"
        thief = f"{TRY}{SEARCH}{THIEF}\ndef f(x): return stolen(x)\n"
    else:
        right = f"answers = {json.dumps(answers)}\nprint(answers[input()])\n"
        thief = f"{TRY}{SEARCH}{THIEF}\nprint(stolen(input()))\n"
    return answers, right, thief


def test_the_search_finds_what_the_program_itself_holds(runner):
    """Or the tests below would show nothing."""
    source = TRY + SEARCH + "def f(x):\n    kept = ['FOUND-' + n * 8 for n in 'ab']\n"
    source += "    return sorted(set(search(rb'FOUND-[ab]{8}')))"
    assert one(runner, source, ((1,),), limits=PATIENT) == [Outcome("ok", ["FOUND-aaaaaaaa", "FOUND-bbbbbbbb"])]


@pytest.mark.parametrize("kind", ["functional", "stdin"])
def test_an_earlier_right_program_is_not_found(runner, kind, monkeypatch):
    answers, right, thief = problem(kind)
    if kind == "functional":
        grader, target = CodeGrader(runner), [{"input": key, "output": value} for key, value in answers.items()]
    else:
        grader = LiveCodeBenchGrader(runner)
        tests = [{"input": f"{key}\n", "output": value, "testtype": "stdin"} for key, value in answers.items()]
        texts = {"public_test_cases": "[]", "private_test_cases": json.dumps(tests), "metadata": "{}"}
        target = livecodebench_tests.make_target(texts)
    monkeypatch.setattr(type(grader), "limits", PATIENT)
    assert grader.correct(right, target)
    assert grader.correct(right + "\n", target)  # again, so that whatever is kept is kept twice
    assert not grader.correct(thief, target)


def test_outputs_and_inputs_of_other_tests_are_not_found(runner):
    marks = [f"VALUE-{secrets.token_hex(16)}" for _ in range(4)]
    echo = "def f(x): return [x, x[::-1]]"
    assert one(runner, echo, tuple((mark[::-1],) for mark in marks))[0] == Outcome("ok", [marks[0][::-1], marks[0]])
    source = TRY + SEARCH + "def f(x): return sorted(set(search(rb'VALUE-[0-9a-f]{32}')))"
    outcomes = one(runner, source, tuple((mark,) for mark in marks), limits=PATIENT)
    assert [outcome.output for outcome in outcomes] == [[mark] for mark in marks]
