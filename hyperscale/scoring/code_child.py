"""The child process that runs model-written programs. Started by path with ``python -I -S``; imports nothing of ours.

Protocol: one JSON line in, ``{"program", "inputs", "seconds", "memory"}``; one JSON line out, the text that the
program's own process wrote on its pipe, or null. Each program gets a fork of this process, so no program meets
another's state.
"""

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import sys
import time

# What a solution may import; anything else would have to be loaded from disk, which the guard refuses.
ALLOWED = [
    "array",
    "bisect",
    "cmath",
    "collections",
    "collections.abc",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "time",
    "typing",
]
MAX_OUTPUT = 1 << 20  # bytes of results per program
REFUSED = (
    "open",
    "import",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "pty.",
    "mmap.",
    "signal.",
    "fcntl.",
    "tempfile.",
    "syslog.",
    "resource.",
    "gc.",
)


def _guard(event: str, _args: object) -> None:
    if event.startswith(REFUSED):
        raise PermissionError(f"{event} is not available to graded programs")


def _limit(kind: str, value: int) -> None:
    if hasattr(resource, kind):  # which limits exist depends on the system
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, kind), (value, value))


def _solve(program: str, inputs: list[str], out: int, seconds: float, memory: int) -> None:
    """Run one program on its inputs in this, forked, process; write the JSON of what it returns to the pipe."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(out, 3)
    os.closerange(4, 64)
    _limit("RLIMIT_CPU", int(seconds) + 1)
    _limit("RLIMIT_AS", memory)
    _limit("RLIMIT_FSIZE", 0)
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_NPROC", 0)
    _limit("RLIMIT_NOFILE", 4)
    sys.addaudithook(_guard)
    dumps, loads, write = json.dumps, json.loads, os.write  # the program may replace the modules' names
    space: dict[str, object] = {"__name__": "solution"}
    results: list[str | None] = []
    try:
        exec(compile(program, "<solution>", "exec"), space)
        function = space["f"]
        for text in inputs:
            try:
                results.append(dumps(function(loads(text))))  # type: ignore[operator]
            except Exception:
                results.append(None)
    except BaseException:
        results = [None] * len(inputs)
    data = dumps(results).encode()
    while data:
        data = data[write(3, data) :]


def _collect(pid: int, pipe: int, seconds: float) -> str | None:
    """Read a program's pipe to its end, within the wall time and the size limit, then make sure the program is dead."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    complete = False
    while (left := deadline - time.monotonic()) > 0 and len(data) <= MAX_OUTPUT:
        if not poll.poll(left * 1000):
            break
        chunk = os.read(pipe, 65536)
        if not chunk:
            complete = True
            break
        data += chunk
    os.close(pipe)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return data.decode("utf-8", "replace") if complete else None


def main() -> None:
    """Serve programs until standard input ends."""
    for name in ALLOWED:
        importlib.import_module(name)
    for line in sys.stdin.buffer:
        task = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _solve(task["program"], task["inputs"], write, task["seconds"], task["memory"])
            finally:
                os._exit(0)
        os.close(write)
        answer = _collect(pid, read, task["seconds"])
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
