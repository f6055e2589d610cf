"""What a hostile program must not do, at every level that claims to hold it."""

import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import textwrap
import time
from dataclasses import replace

import pytest
import sandboxes
from hostile import CASES, World

from hyperscale.scoring.graders import livecodebench_tests
from hyperscale.scoring.graders.code import CodeGrader
from hyperscale.scoring.graders.livecodebench import LiveCodeBenchGrader
from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.child import landlock
from hyperscale.scoring.sandbox.levels import LEVELS
from hyperscale.scoring.sandbox.program import Limits, Outcome, Program

pytestmark = pytest.mark.e2e

LIMITS = Limits(seconds=0.3, wall=0.6, memory=256 << 20, output=1 << 20)
# A busy machine takes a while; what the clock is not meant to stop must not be stopped by it.
PATIENT = replace(LIMITS, seconds=3.0, wall=6.0)
RIGHT = Program("def f(x): return x + 1", ((1,), (2,)))


@pytest.fixture(scope="module", params=LEVELS)
def runner(request):
    with sandboxes.runner_at(request.param, workers=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("user")
        secret, expected, abstract, earlier, later = (secrets.token_hex(16) for _ in range(5))
        (folder / "secret").write_text(secret)
        (folder / "expected.json").write_text(json.dumps(expected))
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix, named = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        unix.bind("\0" + abstract)
        named.bind(str(folder / "socket"))
        unix.listen()
        named.listen()
        datagrams = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(2)]
        datagrams[0].bind(f"\0{abstract}-d")
        datagrams[1].bind(str(folder / "datagrams"))
        victim = stack.enter_context(subprocess.Popen(["sleep", "600"], start_new_session=True))
        stack.callback(victim.kill)
        os.environ["HYPERSCALE_SECRET"] = secret
        stack.callback(os.environ.pop, "HYPERSCALE_SECRET")
        listening = [tcp, udp, unix, named, *datagrams]
        yield World(
            folder,
            secret,
            expected,
            tcp.getsockname()[1],
            udp.getsockname()[1],
            abstract,
            victim.pid,
            "",
            f"EARLIER-{earlier}",
            f"EARLIER-{later}",
            lambda: len(select.select(listening, [], [], 0)[0]),
            lambda: victim.poll() is None,
        )


def inputs(case, world):
    """A hostile program's input; where it is about memory, also that of a second test."""
    if case.about != "memory":
        return ("7\n",) if case.kind == "stdin" else ((7,),)
    return ("7\n", world.later) if case.kind == "stdin" else ((7,), (world.later,))


def skip_where_nothing_holds(case, level):
    """At ``none`` some programs are held by nothing, and would do to this machine what they try."""
    if level == "none" and not case.none:
        pytest.skip("files: the level none promises nothing about them")
    if level == "none" and (why := choose.find_fault("guard")):
        pytest.skip(f"there is nothing between it and this machine: {why}")
    if level == "none" and case.landlock and not landlock.VERSION:
        pytest.skip("this kernel has no Landlock")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_program(case, runner, world):
    world.level = runner.choose_level()
    skip_where_nothing_holds(case, world.level)
    limits = LIMITS if case.runs_into_time and "memory" not in case.name else PATIENT
    start = time.monotonic()
    (before, outcomes, after) = runner.run_many(
        [
            # Its source, its input and its output are what the next one must not find.
            Program(f"def f(x): return x + '{world.earlier}'", ((world.earlier,),)),
            Program(world.fill(case.source), inputs(case, world), kind=case.kind, limits=limits),
            RIGHT,
        ]
    )
    assert time.monotonic() - start < 20
    assert before == [Outcome("ok", world.earlier * 2)]
    outcome = outcomes[0]
    assert world.earlier not in str(outcomes), "it has found an earlier program"
    assert world.later not in str(outcome), "it has found another test's input"
    assert world.expected not in str(outcome.output), "it has seen what only the grader may see"
    assert world.secret not in str(outcome.output), "it has read the user's file"
    assert (world.folder / "secret").read_text() == world.secret
    assert world.visitors() == 0
    os.kill(world.victim, 0)
    case.check(outcome, world)
    assert after == [Outcome("ok", 2), Outcome("ok", 3)], "it has done harm to the next program"


def test_no_flag_or_lock_stays_with_what_the_next_test_is_given(runner):
    if runner.choose_level() == "guard":
        pytest.skip("the guard has no fcntl")
    source = """
    import fcntl, os
    def f(number):
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        fcntl.fcntl(number, fcntl.F_SETFL, flags ^ os.O_NONBLOCK ^ os.O_APPEND)
        return flags
    """
    for number in (0, 1, 2):
        (outcomes,) = runner.run_many([Program(textwrap.dedent(source), ((number,), (number,)))])
        assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
        assert outcomes[0] == outcomes[1]


CHEATS = [case for case in CASES if case.about == "cheating" or "nesting" in case.name]


def targets(kind, expected):
    """The hidden test of a hostile program, for both graders: what is expected is no function of what it is given."""
    output = expected if kind == "stdin" else json.dumps(expected)
    test = [{"input": "7\n" if kind == "stdin" else "7", "output": output, "testtype": kind}]
    meta = {} if kind == "stdin" else {"func_name": "f"}
    texts = {"public_test_cases": "[]", "private_test_cases": json.dumps(test), "metadata": json.dumps(meta)}
    found = [(LiveCodeBenchGrader, livecodebench_tests.make_target(texts))]
    return found if kind == "stdin" else [*found, (CodeGrader, [{"input": 7, "output": expected}])]


@pytest.mark.parametrize("case", CHEATS, ids=lambda case: case.name)
def test_a_hostile_program_passes_no_test(case, runner, world, monkeypatch):
    """With the real graders, whose comparison is out here: no verdict is earned but by the expected output."""
    world.level = runner.choose_level()
    skip_where_nothing_holds(case, world.level)
    for kind, target in targets(case.kind, world.expected):
        monkeypatch.setattr(kind, "limits", LIMITS)
        grader = kind(runner)
        assert "pass" not in sandboxes.verdicts_of(grader, world.fill(case.source), target)
        assert not grader.correct(world.fill(case.source), target)


@pytest.mark.parametrize("kind", ["functional", "stdin"])
def test_the_test_that_no_hostile_program_passes_can_be_passed(kind, runner, world, monkeypatch):
    source = f"def f(x): return {world.expected!r}" if kind == "functional" else f"print({world.expected!r})"
    for grader, target in targets(kind, world.expected):
        monkeypatch.setattr(grader, "limits", PATIENT)
        assert sandboxes.verdicts_of(grader(runner), source, target) == ["pass"]


def test_there_are_at_least_forty_with_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 40
