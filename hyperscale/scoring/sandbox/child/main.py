"""The worker: one line of JSON in for each program, one line out for each of its tests; ends when its input ends.

It loads what it needs once and forks for every test, so no test meets another's state and a test costs a millisecond.
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from . import collect, guard, process, solve, syscalls


def main() -> None:
    """Read the set-up line, go where it says, answer with a line, then serve programs."""
    control = os.dup(0)
    answers = os.dup(1)
    lines = os.fdopen(control, "rb")
    setup = json.loads(lines.readline())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if setup["root"] is not None:
        from . import root

        root.enter(**setup["root"])
    if setup["level"] in ("bwrap", "unshare"):
        process.become(setup["user"])
        process.drop_capabilities()
    os.chdir(setup["folder"])
    os.environ.clear()
    process.hide()
    solve.complete_builtins()
    guard.load_modules()  # where files are refused programs need it, elsewhere it saves each test the loading
    sys.path[:] = [entry for entry in sys.path if entry not in setup["ours"]]
    gc.collect()
    gc.freeze()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    _write(answers, json.dumps({"pid": os.getpid()}))
    for line in lines:
        _serve(json.loads(line), setup, control, answers)


def _serve(task: dict[str, Any], setup: dict[str, Any], control: int, answers: int) -> None:
    failed = False
    for test in task["tests"]:
        if failed and task["stop"]:
            ended = collect.Ended("skipped", b"")
        else:
            ended = _test(task, test, setup, control)
        failed |= ended.status != "ok"
        text = ended.data.decode("utf-8", "surrogateescape") if ended.status == "ok" else ""
        _write(answers, json.dumps([ended.status, text]))
        _clean(setup["folder"])


def _test(task: dict[str, Any], test: str, setup: dict[str, Any], control: int) -> collect.Ended:
    whole = task["kind"] == "stdin"
    stdin = _file(test) if whole else None
    read, write = os.pipe()
    leave = os._exit  # the program may replace the module's
    pid = os.fork()
    if pid == 0:
        code = solve.FAILED
        try:
            out = solve.descriptors(stdin, write, whole)
            _confine(task, setup)
            code = (
                solve.whole(task["source"]) if whole else solve.functional(task["source"], task["function"], test, out)
            )
        finally:
            leave(code)
    os.close(write)
    if stdin is not None:
        os.close(stdin)
    return collect.watch(pid, read, control, task["seconds"], task["wall"], task["output"])


def _confine(task: dict[str, Any], setup: dict[str, Any]) -> None:
    level = setup["level"]
    if level == "guard":
        process.become(setup["user"])
    # Without a user of its own, a worker's processes are counted together with all the others of the user.
    processes = {"guard": 0, "none": None}.get(level, process.THREADS)
    process.limit(task["seconds"], task["memory"], 0 if level == "guard" else setup["disk"], processes)
    process.die_with_parent()
    syscalls.refuse_system_calls()
    if level == "guard":
        guard.refuse_events()


def _file(text: str) -> int:
    """An open file that holds a text, has no name, and cannot be changed where the system can forbid it."""
    data = text.encode("utf-8", "surrogateescape")
    if hasattr(os, "memfd_create"):
        import fcntl

        number = os.memfd_create("input", os.MFD_ALLOW_SEALING)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    while data:
        data = data[os.write(number, data) :]
    os.lseek(number, 0, os.SEEK_SET)
    if hasattr(os, "memfd_create"):
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return number


def _clean(folder: str) -> None:
    """Empty the programs' folder; end the worker if that cannot be done, the next one has a new folder."""
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                Path(entry.path).chmod(0o700)
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
    except (OSError, RecursionError):
        os._exit(3)


def _write(number: int, text: str) -> None:
    data = text.encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(number, data) :]
