"""Keeps a process that runs math-verify: starts it once, limits its time, replaces it when it hangs or dies."""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

from hyperscale.errors import TaskError

_WORKER = Path(__file__).with_name("worker.py")
_ROOT = str(Path(__file__).parents[4])  # where the worker finds hyperscale, however this process found it
_START = 120.0  # seconds the worker may take to load math-verify
_REQUESTS = 5_000  # after so many the worker is replaced, before SymPy's caches fill its memory


class MathVerifier:
    """Compares LaTeX answers in a process of its own, started at first use.

    Args:
        seconds: CPU time of one comparison; a comparison that needs more is no match. Wall time is limited to twice
            that and a second, so that a busy machine turns no right answer wrong.

    Attributes:
        spent: Whether the last comparison reached a limit.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self.spent = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._served = 0

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each answer is mathematically the gold one.

        Args:
            pairs: (gold, answer), LaTeX without delimiters.

        Warns:
            UserWarning: A guard of the worker refused something that a comparison asked for, so that its verdict may
                be the guard's and not math-verify's.

        Raises:
            TaskError: math-verify cannot be loaded.
        """
        with self._lock:
            requests = [{"gold": gold, "answer": answer} for gold, answer in pairs]
            return [self._request(request) is True for request in requests]

    def evaluate(self, text: str) -> str | None:
        """The value of a real constant in 40 digits, or None.

        Args:
            text: LaTeX without delimiters.

        Warns:
            UserWarning: As `compare`.

        Raises:
            TaskError: math-verify cannot be loaded.
        """
        with self._lock:
            value = self._request({"value": text})
        return value if isinstance(value, str) else None

    def _request(self, request: dict[str, str]) -> bool | str | None:
        line_in = json.dumps(request | {"seconds": self.seconds}).encode() + b"\n"
        # A worker killed from outside is no verdict on the answer: it gets a second chance.
        line = self._ask(line_in)
        if line is None:
            line = self._ask(line_in)
        self._served += 1
        reply = json.loads(line) if line else {"result": None, "spent": True, "refused": []}
        if reply["refused"]:
            warnings.warn(
                f"the math grader could not grade {' against '.join(map(repr, request.values()))} and counts it as "
                f"wrong: its guard refused {', '.join(reply['refused'][:3])}. Use the versions of math-verify and "
                "sympy in constraints.txt",
                stacklevel=3,
            )
        self.spent = reply["spent"]
        if self._served >= _REQUESTS or self.spent:
            self.close()  # what ran out of time or memory may have left the libraries in any state
        result: bool | str | None = None if reply["refused"] else reply["result"]
        return result

    def _ask(self, request: bytes) -> bytes | None:
        """The worker's line; empty if it hung, None if it died. Either way the next request starts a new one."""
        try:
            process = self._live_process()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(request)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], 2 * self.seconds + 1)[0]:
                self.close()
                return b""
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                return line
        except BrokenPipeError:
            pass
        except BaseException:
            # After Ctrl-C a notebook goes on. A line left in the pipe would pass for the answer to the next request.
            self.close()
            raise
        self.close()
        return None

    def _live_process(self) -> subprocess.Popen[bytes]:
        # After a fork the parent's worker must not be used: two processes would read each other's lines.
        own = self._owner == os.getpid()
        if self._process is not None and own and self._process.poll() is None:
            return self._process
        self.close()
        process = subprocess.Popen(
            # -P: the worker's own folder, where modules have the names of standard ones, stays off its path.
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))},
            start_new_session=True,
        )
        self._process, self._owner, self._served = process, os.getpid(), 0
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], _START)[0] and process.stdout.readline() == b"ready\n"
        if not ready:
            self.close()
            raise TaskError("the math grader cannot load math-verify: pip install 'math-verify>=0.7'")
        return process

    def close(self) -> None:
        """Kill the worker; the next comparison starts a new one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


_shared: MathVerifier | None = None


def get_shared_verifier() -> MathVerifier:
    """This process's one verifier with the default limit, closed at exit."""
    global _shared
    if _shared is None:
        _shared = MathVerifier()
        atexit.register(_shared.close)
    return _shared
