"""Runs model-written programs in a child process with limits, away from this process and from the user's files.

The child (`code_child`) is started with ``python -I -S``, an empty environment, an empty temporary folder as working
directory and a session of its own. It forks once per program; the fork has limits on CPU time, memory, open files and
processes, may write no file, has no descriptors but a pipe for its results, and refuses to open files, load modules or
touch other processes. Wall time is enforced by the child and, should that fail, here, by killing the child's whole
process group. Expected outputs never enter the child.

This keeps mistakes and casual mischief away from the user's machine. It is no boundary against an attacker who
writes exploits for the interpreter.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CHILD = Path(__file__).with_name("code_child.py")
_GRACE = 5.0  # seconds the child may be late before it is taken for dead


class CodeRunner:
    """A warm child process that runs programs one after another; started at first use, restarted when it dies.

    Args:
        seconds: Wall and CPU time one program may take for all its tests.
        memory: Address space of one program in bytes.
    """

    def __init__(self, seconds: float = 2.0, memory: int = 512 << 20) -> None:
        self.seconds = seconds
        self.memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._owner = 0

    def run(self, jobs: Sequence[tuple[str, Sequence[Any]]]) -> list[list[str | None]]:
        """Run each program's function ``f`` on each of its inputs.

        Args:
            jobs: (program, inputs); inputs are JSON-able, each is passed as ``f``'s one argument.

        Returns:
            For each job, for each input, the returned value as JSON, or None if there is none: an exception, a value
            JSON cannot hold, a limit reached, no function ``f``.
        """
        with self._lock:
            return [self._run_one(program, inputs) for program, inputs in jobs]

    def _run_one(self, program: str, inputs: Sequence[Any]) -> list[str | None]:
        failed: list[str | None] = [None] * len(inputs)
        task = {
            "program": program,
            "inputs": [json.dumps(value) for value in inputs],
            "seconds": self.seconds,
            "memory": self.memory,
        }
        request = json.dumps(task).encode() + b"\n"
        # A child killed from outside (out of memory, say) is no verdict on the program: it gets a second chance.
        line = self._ask(request)
        if line is None:
            line = self._ask(request)
        if not line:
            return failed
        try:
            results = json.loads(json.loads(line))  # the inner text is the program's own and may be anything
        except (ValueError, TypeError, RecursionError):
            return failed
        valid = isinstance(results, list) and len(results) == len(inputs)
        return [value if isinstance(value, str) else None for value in results] if valid else failed

    def _ask(self, request: bytes) -> bytes | None:
        """The child's answer line; empty if it hung, None if it died. Either way the next request starts a new one."""
        process = self._alive()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], self.seconds + _GRACE)[0]:
                self.close()
                return b""
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                return line
        except BrokenPipeError:
            pass
        self.close()
        return None

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        if self._owner == os.getpid():
            self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="hyperscale-code-", ignore_cleanup_errors=True)
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={},
            start_new_session=True,
        )
        return self._process

    def close(self) -> None:
        """Kill the child with its process group and remove its folder; the next `run` starts a new one."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            process.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


_shared: CodeRunner | None = None


def shared_runner() -> CodeRunner:
    """This process's one runner with default limits, closed at exit."""
    global _shared
    if _shared is None:
        _shared = CodeRunner()
        atexit.register(_shared.close)
    return _shared
