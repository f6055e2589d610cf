"""Runs one test of a program in this process, which was forked for it, and ends the process."""

import _sitebuiltins
import atexit
import builtins
import contextlib
import io
import json
import os
import sys
import threading
import types
from typing import Any

DONE, FAILED, OUT_OF_MEMORY, UNCONFINED = 0, 1, 97, 98  # exit codes
_CHUNK = 1 << 20
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
    """Give programs ``exit`` and ``quit``, which the interpreter leaves out without its site module."""
    builtins.exit, builtins.quit = (_sitebuiltins.Quitter(name, "") for name in ("exit", "quit"))


def _opened(file: Any, *arguments: Any, **named: Any) -> Any:
    """`open`, where standard input has a path too; there is no such file in the sandbox."""
    return io.open(0 if file == "/dev/stdin" else file, *arguments, **named)  # noqa: UP020  # builtins.open is this one


def run_whole(source: str) -> int:
    """Run the program as ``__main__`` on standard input and output, as the interpreter would; returns the exit code."""
    sys.argv = ["solution.py"]
    builtins.open = _opened
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    # As the interpreter ends: the program, its threads, its exit handlers, then what is left in the output's buffer.
    code = _exit_code_of(lambda: exec(compile(source, "<solution>", "exec"), module.__dict__))
    shutdown = getattr(threading, "_shutdown", None)  # waits for the program's threads
    finish = [shutdown] if shutdown else []
    for step in (*finish, atexit._run_exitfuncs, _flush_output):
        code = max(code, _exit_code_of(step))
    return code


def _flush_output() -> None:
    if not getattr(sys.stdout, "closed", False):  # the program may have closed it, which wrote what was left
        sys.stdout.flush()


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
    parts: list[bytes] = []
    place = 0
    while part := os.pread(number, _CHUNK, place):
        parts.append(part)
        place += len(part)
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
    null = os.open(os.devnull, os.O_RDWR)
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
