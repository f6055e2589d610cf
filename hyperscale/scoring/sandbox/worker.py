"""Drives one warm worker process: starts it, sends it programs, reads answers, kills it with all that it started.

Both directions are pipes with one line of JSON a message. A worker may be stopped, killed or hang at any time, so no
read and no write waits without a deadline.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hyperscale.errors import SandboxError
from hyperscale.scoring.sandbox import levels
from hyperscale.scoring.sandbox.program import Program

_GRACE = 5.0  # seconds a worker may be late before it is taken for dead
_START = 20.0  # seconds it may take to start
_CHUNK = 1 << 16


class WorkerDiedError(Exception):
    """The worker is gone or does not answer. No verdict on the program: the system may have killed it."""


class SandboxWorker:
    """A worker at a level; use it from one thread at a time.

    Args:
        level: As `levels.worker_command` takes it.
        number: Tells the workers of this process apart.

    Raises:
        SandboxError: The system does not let it start; the message is the reason.
    """

    def __init__(self, level: str, number: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hyperscale-code-", ignore_cleanup_errors=True)
        self._owner = os.getpid()
        self._unread = b""  # what was read behind the last line
        start = levels.worker_command(level, self._folder.name, number)
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            start.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=self._folder.name,
            env=levels.environment(),
            start_new_session=True,  # a process group of its own, to be killed as a whole
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        # A worker that reads or writes nothing must not hang us: `_wait` has the deadline, the calls never block.
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        try:
            deadline = time.monotonic() + _START
            self._send(start.setup, deadline)
            self._read_line(deadline)
        except WorkerDiedError:
            self.close()
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise SandboxError(lines[-1] if lines else "it does not start") from None
        finally:
            errors.close()

    @property
    def pid(self) -> int:
        """The process that was started; the worker itself may be a child of it."""
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Its working directory, outside."""
        return Path(self._folder.name)

    def alive(self) -> bool:
        """Whether it runs and belongs to this process; after a fork the parent's workers are not the child's."""
        return self._owner == os.getpid() and self._process.poll() is None

    def send(self, program: Program) -> None:
        """Send a program; `answer` then gives its tests' answers, one by one.

        Raises:
            WorkerDiedError: It is gone.
        """
        limits = program.limits
        task = {
            "source": program.source,
            "kind": program.kind,
            "function": program.function,
            "tests": [test if program.kind == "stdin" else json.dumps(list(test)) for test in program.tests],
            "stop": program.stop_at_failure,
            "seconds": limits.seconds,
            "wall": limits.wall_seconds,
            "memory": limits.memory,
            "output": limits.output,
        }
        self._send(task, time.monotonic() + _GRACE)

    def answer(self, seconds: float) -> tuple[str, str]:
        """The next test's status and text.

        Args:
            seconds: Wall time the test may take.

        Raises:
            WorkerDiedError: There is none within the time.
        """
        status, text = json.loads(self._read_line(time.monotonic() + seconds + _GRACE))
        return str(status), str(text)

    def _send(self, task: dict[str, Any], deadline: float) -> None:
        data = memoryview(json.dumps(task).encode() + b"\n")
        while data:
            self._wait(self._in, selectors.EVENT_WRITE, deadline)
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                continue
            except OSError:
                raise WorkerDiedError from None

    def _read_line(self, deadline: float) -> bytes:
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            self._wait(self._out, selectors.EVENT_READ, deadline)
            chunk = os.read(self._out, _CHUNK)
            if not chunk:  # the other end is closed
                raise WorkerDiedError
            parts.append(chunk)
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line

    def _wait(self, number: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(number, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise WorkerDiedError

    def close(self) -> None:
        """Kill it with all it started, and remove its folder."""
        if self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process.wait()
            self._folder.cleanup()
