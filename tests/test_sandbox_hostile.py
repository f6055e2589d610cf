"""What a hostile program must not do, at every level that claims to hold it."""

import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import time
from dataclasses import replace

import pytest
from hostile import CASES, World

from hyperscale.scoring import sandbox
from hyperscale.scoring.code_runner import CodeRunner, Limits, Outcome, Program

LIMITS = Limits(seconds=0.3, wall=0.6, memory=256 << 20, output=1 << 20)
# Filling memory takes a while on a busy machine; these must be stopped by the memory limit, not by the clock.
PATIENT = replace(LIMITS, seconds=3.0, wall=6.0)
RIGHT = Program("def f(x): return x + 1", ((1,), (2,)))


@pytest.fixture(scope="module", params=["bwrap", "unshare", "guard"])
def runner(request):
    reason = sandbox.broken(request.param)
    if reason:
        pytest.skip(f"no {request.param} here: {reason}")
    runner = CodeRunner(sandbox=request.param, workers=1)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("user")
        secret, expected, abstract = (secrets.token_hex(16) for _ in range(3))
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
        victim = stack.enter_context(subprocess.Popen(["sleep", "600"]))
        stack.callback(victim.kill)
        os.environ["HYPERSCALE_SECRET"] = secret
        stack.callback(os.environ.pop, "HYPERSCALE_SECRET")
        listening = [tcp, udp, unix, named]
        yield World(
            folder,
            secret,
            expected,
            tcp.getsockname()[1],
            udp.getsockname()[1],
            abstract,
            victim.pid,
            "",
            lambda: len(select.select(listening, [], [], 0)[0]),
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_program(case, runner, world):
    world.level = runner.level()
    test = "7\n" if case.kind == "stdin" else (7,)
    limits = PATIENT if "memory" in case.name else LIMITS
    start = time.monotonic()
    (outcomes, after) = runner.run_many(
        [Program(world.fill(case.source), (test,), kind=case.kind, limits=limits), RIGHT]
    )
    assert time.monotonic() - start < 10
    (outcome,) = outcomes
    assert world.expected not in str(outcome.output), "it has seen what only the grader may see"
    assert world.secret not in str(outcome.output), "it has read the user's file"
    assert (world.folder / "secret").read_text() == world.secret
    assert world.visitors() == 0
    os.kill(world.victim, 0)
    case.check(outcome, world)
    assert after == [Outcome("ok", 2), Outcome("ok", 3)], "it has done harm to the next program"


def test_there_are_at_least_forty_with_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 40
