"""The origin: the process that tests are forked from. It never reads a program, an input or an output.

For each test it is sent one line with limits, and three descriptors: the program, the test's input, and a pipe for the
output. It forks; only the fork reads the first two and writes to the third, whose other end is the grader's. So a
program that searches its memory finds what the origin had, which is an interpreter and its modules, and what it was
given itself: no other program, no other input, no output.

The origin waits for the fork and reports how it ended: wait status, CPU seconds, and whether the programs' folder is
empty again.
"""

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import landlock, modules, process, root, solve, syscalls

_LINE = 1 << 12  # bytes of a message at most, but for the first
_GLANCE = 0.002  # seconds between looks at whether a test has ended, where the system does not tell


def main() -> None:
    """Read the set-up line, enter the sandbox that it describes, answer with a line, then fork for each test."""
    # Descriptors 0 to 2 are about to be closed to programs; the socket to the parent moves out of their way.
    control = socket.socket(fileno=os.dup(0))
    setup = json.loads(_read_line(control))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if setup["root"] is not None:
        root.enter_root(**setup["root"])
    elif setup["level"] == "bwrap":  # whose own folder is bounded in bytes, but not in files
        with contextlib.suppress(OSError):
            root.bound_folder(setup["folder"], setup["disk"])
    # From here on it only gives up: first root, then what root could still get back.
    if setup["level"] == "guard":
        modules.load_modules()  # the user it becomes may not be able to read them
    else:
        os.chdir(setup["folder"])
    if setup["level"] != "none":
        process.become_user(setup["user"])
    process.drop_capabilities()
    process.forbid_tracing()
    os.environ.clear()
    solve.complete_builtins()
    modules.load_modules()
    sys.path[:] = [entry for entry in sys.path if entry not in setup["ours"]]
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    process.set_common_limits()
    landlock.leave_the_others(files=setup["level"] != "guard")  # forks stay in the same domain
    gc.collect()
    gc.freeze()  # forks share these objects' pages: a collection there would write to, and so copy, all of them
    _send(control, {"pid": os.getpid()})  # ready
    while True:
        line, descriptors, _, _ = socket.recv_fds(control, _LINE, 3)
        if not line:
            return  # the grader is gone
        if len(descriptors) == 3:  # else it asks to end a test that has ended by itself
            _send(control, _run_test(json.loads(line), descriptors, setup, control))


def _run_test(limits: dict[str, Any], descriptors: list[int], setup: dict[str, Any], control: socket.socket) -> Any:
    """Fork for a test and wait for its end: [wait status, CPU seconds, whether the folder is empty]."""
    limits["parent"] = os.getpid()
    exit_now = os._exit  # the program may replace the module's
    pid = os.fork()
    if pid == 0:
        # The fork. It must never return into the loop above, whatever the program does: hence the finally.
        code = solve.FAILED
        try:
            code = _solve(limits, descriptors, setup)
        finally:
            exit_now(code)
    for number in descriptors:
        os.close(number)
    status, usage = _wait(pid, control)
    _kill_rest(pid)
    return [status, usage.ru_utime + usage.ru_stime, setup["level"] == "guard" or _empty_folder(setup["folder"])]


def _solve(limits: dict[str, Any], descriptors: list[int], setup: dict[str, Any]) -> int:
    """Run one test in this process, which was forked for it; returns the exit code."""
    program, given, out = descriptors
    function, _, source = solve.read_all(program).decode("utf-8", "surrogatepass").partition("\n")
    whole = not function
    arguments = "" if whole else solve.read_all(given).decode()
    out = solve.arrange_descriptors(given if whole else None, out, whole)
    if not _confine(limits, setup):
        return solve.UNCONFINED
    if whole:
        return solve.run_whole(source)
    return solve.call_function(source, function, arguments, out)


def _confine(limits: dict[str, Any], setup: dict[str, Any]) -> bool:
    """Limit this process before it runs the program: first limits, then what forbids to change them.

    Returns:
        Whether all that the level consists of is in force.
    """
    level = setup["level"]
    # Without a user of its own, a worker's processes are counted together with all the others of the user.
    processes = {"guard": 0, "none": None}.get(level, process.THREADS)
    process.set_limits(limits["seconds"], limits["memory"], 0 if level == "guard" else setup["disk"], processes)
    process.die_with_parent(limits["parent"])
    files = level != "guard"
    return syscalls.refuse_system_calls(files) or files


def _wait(pid: int, control: socket.socket) -> tuple[int, Any]:
    """Wait for a fork; anything that arrives meanwhile asks to kill it."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    ended = _open_process(pid)
    if ended is not None:
        poll.register(ended, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll(None if ended is not None else _GLANCE * 1000))
            if control.fileno() in ready:
                gone = not control.recv(_LINE)
                _kill(pid)
                if gone:
                    os._exit(0)  # nobody waits for an answer
            waited, status, usage = os.wait4(pid, os.WNOHANG)
            if waited:
                return status, usage
    finally:
        if ended is not None:
            os.close(ended)


def _open_process(pid: int) -> int | None:
    """A descriptor that can be read from when a process has ended; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _kill(pid: int) -> None:
    """Kill a process and all that it may have started: in a process namespace of our own, everything but us."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpid() == 1 and sys.platform == "linux":  # -1 is every process of the namespace but number 1
            os.kill(-1, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _kill_rest(pid: int) -> None:
    """Kill what a test's process left behind, where there is a namespace to know it by, and leave no zombie."""
    if os.getpid() == 1:
        _kill(pid)
    with contextlib.suppress(ChildProcessError):
        while os.getpid() == 1 or os.waitpid(-1, os.WNOHANG)[0]:
            if os.getpid() == 1:
                os.waitpid(-1, 0)


def _empty_folder(folder: str) -> bool:
    """Empty the programs' folder and make it look new; returns whether that could be done."""
    try:
        if Path(folder).is_symlink():  # to somebody's folder, which is not ours to empty
            return False
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                Path(entry.path).chmod(0o700)
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
        # A program may be the folder's owner, and could leave a number in its times for the next one.
        with contextlib.suppress(PermissionError):
            os.utime(folder, (0, 0))
    except (OSError, RecursionError):
        return False
    return True


def _read_line(control: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = control.recv(1 << 16)
        if not chunk:
            sys.exit(0)
        line += chunk
    return line


def _send(control: socket.socket, message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.sendall(json.dumps(message).encode() + b"\n")
