"""Runs one test of a program in this process, which was forked for it, and ends the process."""

import _sitebuiltins
import _thread
import atexit
import builtins
import contextlib
import io
import json
import os
import sys
import threading
import types
import weakref
from typing import Any

from . import process

DONE, FAILED, OUT_OF_MEMORY, UNCONFINED = 0, 1, 97, 98  # exit codes
_MAX_DIGITS = 50_000  # of integers read and written, as LiveCodeBench sets it
_STANDARD = {
    **dict.fromkeys(("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"), 0),
    **dict.fromkeys(("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"), 1),
}
_open = io.open
_streams: list[weakref.ref[Any]] = []  # files that a whole program opened on descriptors, oldest first
_DESCRIPTORS = 4096  # none above can be open: the origin is started with three


def call_function(source: str, function: str, arguments: str, out: int) -> int:
    """Call a function of the program and write what it returns, as JSON, to a descriptor; returns the exit code."""
    dumps, values, write = json.dumps, json.loads(arguments), os.write  # the program may replace the modules' names
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses and pickle look a class's module up there
    try:
        exec(compile(source, "<solution>", "exec"), module.__dict__)
        data = dumps(_find(module, function)(*values)).encode()
        while data:
            data = data[write(out, data) :]
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException:
        return FAILED
    return DONE


def _find(module: types.ModuleType, function: str) -> Any:
    solution = getattr(module, "Solution", None)
    if isinstance(solution, type) and hasattr(solution, function):
        return getattr(solution(), function)
    return getattr(module, function)


def complete_builtins() -> None:
    """Make the interpreter what programs for contests expect.

    They get ``exit`` and ``quit``, which it leaves out without its site module, and integers of as many digits as in
    LiveCodeBench. Many ask for a stack of a GiB, which the limit on memory would refuse: they get one that suffices.
    """
    builtins.exit, builtins.quit = (_sitebuiltins.Quitter(name, "") for name in ("exit", "quit"))
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(_MAX_DIGITS)
    stack_size = threading.stack_size

    def limited_stack_size(size: int = 0) -> int:
        return stack_size(min(size, process.STACK))

    threading.stack_size = _thread.stack_size = limited_stack_size


def _opened(file: Any, *arguments: Any, **named: Any) -> Any:
    """`open`, where standard input and output have paths too; there are no such files in the sandbox."""
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    if isinstance(path, str) and path in _STANDARD:
        file, named = os.dup(_STANDARD[path]), {**named, "closefd": True}
    opened = _open(file, *arguments, **named)
    if isinstance(file, int):
        _streams.append(weakref.ref(opened))
    return opened


def _renew_standard_files() -> None:
    """Make `sys.stdin` and the others anew, as the interpreter makes them.

    Those it has were made for what the origin was started with, and keep what they found out then: a wrapper that a
    program puts round the output would ask a pipe for its position.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        mode = "w" if number else "r"
        file: Any = _open(number, mode, encoding="utf-8", errors=errors, newline="\n", closefd=False)
        file.buffer.raw.name = f"<{name}>"
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


def run_whole(source: str) -> int:
    """Run the program as ``__main__`` on standard input and output, as the interpreter would; returns the exit code."""
    sys.argv = ["solution.py"]
    _renew_standard_files()
    builtins.open = io.open = _opened
    module = types.ModuleType("__main__")
    vars(module)["__builtins__"] = builtins  # a module in ``__main__``, where others have its dictionary
    streams = [sys.stdout]
    sys.modules["__main__"] = module
    # As the interpreter ends: the program, its threads, its exit handlers, then what is left in the output's buffer.
    code = _exit_code_of(lambda: exec(compile(source, "<solution>", "exec"), module.__dict__))
    shutdown = getattr(threading, "_shutdown", None)  # waits for the program's threads
    finish = [shutdown] if shutdown else []
    for step in (*finish, atexit._run_exitfuncs):
        code = max(code, _exit_code_of(step))
    # Then its files: the one that is standard output now, those that it opened itself, the one it was given.
    streams[:0] = [
        getattr(sys, "stdout", None),
        *(value for value in vars(module).values() if isinstance(value, io.IOBase)),
        *(stream() for stream in _streams),
    ]
    for stream in streams:
        code = max(code, _exit_code_of(lambda stream=stream: _flush(stream)))
    return code


def _flush(stream: Any) -> None:
    """Write what is left in a stream, unless it is none, or was closed or taken apart, which wrote it."""
    with contextlib.suppress(ValueError):  # detached from its buffer
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _exit_code_of(step: Any) -> int:
    try:
        step()
    except SystemExit:
        return DONE
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException:
        return FAILED
    return DONE


def read_all(number: int) -> bytes:
    """All of an open file, wherever others that have it open stand in it."""
    size = os.fstat(number).st_size
    parts: list[bytes] = []
    place = 0
    while place < size:  # one call gives 2 GiB at most
        parts.append(os.pread(number, size - place, place))
        place += len(parts[-1])
    return b"".join(parts)


def arrange_descriptors(stdin: int | None, out: int, stdout: bool) -> int:
    """Keep nothing open but standard input, output and error, and a pipe for what a function returns.

    Args:
        stdin: What to read from descriptor 0; None for nothing.
        out: The pipe.
        stdout: Whether the pipe is standard output; else it is descriptor 3.

    Returns:
        The pipe's descriptor.
    """
    try:
        null = os.open(os.devnull, os.O_RDWR)  # of its own: flags and locks would stay with one that all tests share
    except OSError:
        null = os.dup(2)  # as the origin left it, which at the level ``guard`` has no file to open any more
    highest = max(null, out, stdin or 0)
    # Any of them may have a number that is about to be overwritten, so the pipe first moves above them all.
    moved_out = os.dup2(out, highest + 1)
    os.dup2(null if stdin is None else stdin, 0)
    os.dup2(moved_out if stdout else null, 1)
    os.dup2(null, 2)
    target = 1 if stdout else 3
    os.dup2(moved_out, target)
    with contextlib.suppress(ValueError):
        os.closerange(2 + (target == 3) + 1, _DESCRIPTORS)
    return target
