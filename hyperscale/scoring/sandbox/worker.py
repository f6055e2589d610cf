"""Drives one worker: starts its origin in a sandbox, hands it tests, reads outputs, kills it with all it started.

The origin (`child.main`) forks for each test. Program and input go to the fork as open files, and its output comes back
through a pipe that only the fork and we hold; the origin sees none of them. What is said to the origin, limits one way
and wait statuses the other, goes over a socket. A worker may be stopped, killed or hang at any time, so nothing here
waits without a deadline.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hyperscale.errors import SandboxError
from hyperscale.scoring.sandbox import levels
from hyperscale.scoring.sandbox.child import solve
from hyperscale.scoring.sandbox.files import open_data
from hyperscale.scoring.sandbox.folders import WorkerFolder
from hyperscale.scoring.sandbox.program import Program, Status

_GRACE = 5.0  # seconds a worker may be late before it is taken for dead
_START = 20.0  # seconds it may take to start
_CHUNK = 1 << 16


class WorkerDiedError(Exception):
    """The worker is gone or does not answer. No verdict on the program: the system may have killed it."""


class OpenProgram:
    """A program as its tests get it: source and name of the function, in an open file that all of them read.

    Args:
        program: The program.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        limits = program.limits
        self.limits = json.dumps({"seconds": limits.seconds, "memory": limits.memory}).encode() + b"\n"
        # The first line is the function's name, and empty for a whole program.
        text = f"{'' if program.kind == 'stdin' else program.function}\n{program.source}"
        self.descriptor = open_data(text.encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


class SandboxWorker:
    """A worker at a level; use it from one thread at a time.

    Args:
        level: As `levels.worker_command` takes it.
        number: Tells the workers of this process apart.

    Raises:
        SandboxError: The system does not let it start; the message is the reason.
    """

    def __init__(self, level: str, number: int = 0) -> None:
        self._folder = WorkerFolder()
        self._owner = os.getpid()
        self._unread = b""  # what was read behind the last line
        self._spent = False
        start = levels.worker_command(level, str(self._folder.path), number)
        self._control, theirs = socket.socketpair()
        # A worker that reads nothing must not hang us: polls have the deadline, calls never block.
        self._control.setblocking(False)
        with tempfile.TemporaryFile() as errors:
            try:
                with theirs:
                    self._process = subprocess.Popen(
                        start.command,
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        cwd=self._folder.path,
                        env=levels.environment(),
                        start_new_session=True,  # a process group of its own, to be killed as a whole
                    )
            except BaseException:
                self._control.close()
                self._folder.remove()
                raise
            try:
                deadline = time.monotonic() + _START
                self._send(json.dumps(start.setup).encode() + b"\n", [], deadline)
                self._read_reply(deadline)
            except WorkerDiedError:
                self.close()
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise SandboxError(lines[-1] if lines else "it does not start") from None
            except BaseException:  # Ctrl-C, for one: nobody else knows the process and its folder
                self.close()
                raise

    @property
    def pid(self) -> int:
        """The process that was started; the origin itself may be a child of it."""
        return int(self._process.pid)

    @property
    def folder(self) -> Path:
        """Its working directory, outside."""
        return self._folder.path

    def alive(self) -> bool:
        """Whether it can take another test: it runs, owes no reply, is clean, and belongs to this process.

        After a fork the parent's workers are not the child's.
        """
        return self._owner == os.getpid() and not self._spent and self._process.poll() is None

    def run_test(self, opened: OpenProgram, index: int) -> tuple[Status, bytes]:
        """Run one test of a program.

        Returns:
            Its status as in `program.Outcome`, and what it wrote or returned.

        Raises:
            WorkerDiedError: The worker is gone, or does not answer within the test's time.
        """
        program, limits = opened.program, opened.program.limits
        test = program.tests[index]
        text = test if program.kind == "stdin" else json.dumps(list(test))
        given = open_data(text.encode("utf-8", "surrogatepass"))
        read, write = os.pipe()
        deadline = time.monotonic() + limits.wall_seconds
        # Until its reply is read, which an exception may prevent: the next test would take that reply for its own.
        self._spent = True
        try:
            try:
                self._send(opened.limits, [opened.descriptor, given, write], deadline + _GRACE)
            finally:
                os.close(given)
                os.close(write)
            return self._watch(read, deadline, program.output_limit(index), limits.seconds)
        finally:
            os.close(read)

    def _watch(self, output: int, deadline: float, most: int, seconds: float) -> tuple[Status, bytes]:
        """Read a test's output until it ends or passes a limit; then it is killed."""
        os.set_blocking(output, False)
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        data = bytearray()
        stop: Status | None = None  # the limit that was reached
        while stop is None and not self._unread:
            left = deadline - time.monotonic()
            ready = dict(poll.poll(max(0.0, left) * 1000))
            if not ready and left <= 0:
                stop = "timeout"
            if output in ready:
                if not _read_some(output, data):
                    poll.unregister(output)  # every copy of the writing end is closed; the test has not ended yet
                stop = "output" if len(data) > most else None
            elif self._control.fileno() in ready:
                break
        if stop is not None:
            self._send(b"\n", [], time.monotonic() + _GRACE)
        # The origin answers when the test has ended and its folder is empty.
        code, cpu_time, clean = self._read_reply(time.monotonic() + _GRACE)
        self._spent = not clean
        while stop is None and _read_some(output, data):  # what it left in the pipe
            stop = "output" if len(data) > most else None
        # The system limits whole seconds only (RLIMIT_CPU), so the CPU time used is compared with the limit here.
        return stop or _read_status(code, cpu_time > seconds), bytes(data)

    def _send(self, message: bytes, descriptors: list[int], deadline: float) -> None:
        while message:
            try:
                message = message[socket.send_fds(self._control, [message], descriptors) :]
                descriptors = []
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError:
                raise WorkerDiedError from None

    def _read_reply(self, deadline: float) -> Any:
        line = self._unread
        while b"\n" not in line:
            try:
                chunk = self._control.recv(_CHUNK)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError:
                chunk = b""
            if not chunk:  # the other end is closed
                raise WorkerDiedError
            line += chunk
        line, _, self._unread = line.partition(b"\n")
        return json.loads(line)

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._control, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise WorkerDiedError

    def close(self) -> None:
        """Kill it with all it started, and remove its folder."""
        if self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._control.close()
            self._process.wait()
            self._folder.remove()


def _read_some(output: int, data: bytearray) -> bool:
    """Read what a pipe holds, up to one chunk; returns whether more may come."""
    try:
        chunk = os.read(output, _CHUNK)
    except BlockingIOError:
        return False
    data += chunk
    return bool(chunk)


def _read_status(code: int, late: bool) -> Status:
    """What a wait status says; ``late`` is whether too much CPU time was used."""
    if os.WIFSIGNALED(code):
        return "timeout" if late or os.WTERMSIG(code) == signal.SIGXCPU else "killed"
    if late:
        return "timeout"
    exit_code = os.WEXITSTATUS(code)
    return "ok" if exit_code == solve.DONE else "memory" if exit_code == solve.OUT_OF_MEMORY else "error"
