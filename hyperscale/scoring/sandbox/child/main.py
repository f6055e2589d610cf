"""Serves programs: one line of JSON in for each program, one line out for each of its tests, until the input ends.

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
    """Read the set-up line, enter the sandbox that it describes, answer with a line, then serve programs."""
    # Descriptors 0 to 2 are about to be closed to programs; the two pipes to the parent move out of their way.
    control = os.dup(0)
    answers = os.dup(1)
    lines = os.fdopen(control, "rb")
    setup = json.loads(lines.readline())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if setup["root"] is not None:
        from . import root

        root.enter_root(**setup["root"])
    # From here on the worker only gives up: first root, then what root could still get back.
    if setup["level"] in ("bwrap", "unshare"):
        process.become_user(setup["user"])
        process.drop_capabilities()
    os.chdir(setup["folder"])
    os.environ.clear()
    process.forbid_tracing()
    solve.complete_builtins()
    guard.load_modules()  # where files are refused programs need it, elsewhere it saves each test the loading
    sys.path[:] = [entry for entry in sys.path if entry not in setup["ours"]]
    gc.collect()
    gc.freeze()  # forks share these objects' pages: a collection there would write to, and so copy, all of them
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    _write(answers, json.dumps({"pid": os.getpid()}))  # ready
    for line in lines:
        _run_program(json.loads(line), setup, control, answers)


def _run_program(task: dict[str, Any], setup: dict[str, Any], control: int, answers: int) -> None:
    """Run a program's tests, each in a fork, and answer each with a line: [status, text]."""
    failure = False
    for test in task["tests"]:
        if failure and task["stop"]:
            result = collect.ProcessResult("skipped", b"")
        else:
            result = _run_test(task, test, setup, control)
        failure |= result.status != "ok"
        text = result.data.decode("utf-8", "surrogateescape") if result.status == "ok" else ""
        _write(answers, json.dumps([result.status, text]))
        _empty_folder(setup["folder"])


def _run_test(task: dict[str, Any], test: str, setup: dict[str, Any], control: int) -> collect.ProcessResult:
    whole = task["kind"] == "stdin"
    stdin = _open_text(test) if whole else None
    read, write = os.pipe()
    exit_now = os._exit  # the program may replace the module's
    pid = os.fork()
    if pid == 0:
        # The fork. It must never return into the worker's loop, whatever the program does: hence the finally.
        code = solve.FAILED
        try:
            out = solve.arrange_descriptors(stdin, write, whole)
            _confine(task, setup)
            code = (
                solve.run_whole(task["source"])
                if whole
                else solve.call_function(task["source"], task["function"], test, out)
            )
        finally:
            exit_now(code)
    # The worker. With its copy of the writing end closed, the pipe ends when the fork's copies do.
    os.close(write)
    if stdin is not None:
        os.close(stdin)
    return collect.watch_process(pid, read, control, task["seconds"], task["wall"], task["output"])


def _confine(task: dict[str, Any], setup: dict[str, Any]) -> None:
    """Limit this process before it runs the program: first limits, then the filters, which forbid to change them."""
    level = setup["level"]
    if level == "guard":
        process.become_user(setup["user"])
    # Without a user of its own, a worker's processes are counted together with all the others of the user.
    processes = {"guard": 0, "none": None}.get(level, process.THREADS)
    process.set_limits(task["seconds"], task["memory"], 0 if level == "guard" else setup["disk"], processes)
    process.die_with_parent()
    syscalls.refuse_system_calls()
    if level == "guard":
        guard.refuse_events()


def _open_text(text: str) -> int:
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


def _empty_folder(folder: str) -> None:
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
