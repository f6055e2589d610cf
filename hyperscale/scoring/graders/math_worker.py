"""Compares mathematical answers by math-verify, in a process of its own.

Started by path; imports nothing from the rest of hyperscale.

Protocol: one JSON line in, ``{"gold", "answer", "seconds"}``; one JSON line out: true, false, or null where the limit
on CPU time or memory was reached. Model text is only ever parsed. math-verify's plain extractor, and SymPy wherever it
is given a string, a number for instance, go through Python's ``eval``: the extractor is left out, SymPy's parser is
replaced by one that reads numbers, and from the first request on this process refuses to compile or run any code that
does not come from an installed file.
"""

import contextlib
import json
import os
import re
import resource
import signal
import sys
from types import CodeType, FrameType
from typing import Any, NoReturn

MEMORY = 2 << 30  # bytes of address space; math-verify and SymPy take about 0.3 GiB of it
_REFUSED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.", "socket.", "ctypes.")


class _OutOfTimeError(BaseException):
    """Not an Exception, so that no ``except Exception`` on the way up goes on computing."""


def _out_of_time(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _OutOfTimeError


def _no_evaluation(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: code from text (``eval``, ``exec``, ``compile``), new processes and sockets are refused."""
    if event == "compile":
        name = os.fsdecode(arguments[1]) if isinstance(arguments[1], bytes) else str(arguments[1])
    elif event == "exec":
        name = arguments[0].co_filename if isinstance(arguments[0], CodeType) else "<?>"
    elif event.startswith(_REFUSED):
        raise PermissionError(f"{event} is not available to the math grader")
    else:
        return
    if not name.endswith((".py", ".pyc")) and not name.startswith("<frozen "):
        raise PermissionError("the math grader evaluates no text")


def _read_numbers_only() -> None:
    """Put a reader of decimal numbers in the place of SymPy's parser, which evaluates what it reads as Python."""
    from sympy import Expr, Float, Integer  # type: ignore[import-untyped]
    from sympy.parsing import sympy_parser  # type: ignore[import-untyped]

    def number(text: str, *_: Any, **__: Any) -> Expr:
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return Integer(int(text))
        if re.fullmatch(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", text):
            return Float(text)
        raise ValueError("not a decimal number")

    sympy_parser.parse_expr = number


def main() -> None:
    """Answer requests until standard input ends."""
    from math_verify import LatexExtractionConfig, parse, verify

    _read_numbers_only()

    def compare(gold: str, answer: str) -> bool:
        target = (LatexExtractionConfig(),)
        trees = [parse(f"\\boxed{{{text}}}", target, parsing_timeout=0) for text in (gold, answer)]
        return bool(verify(*trees, timeout_seconds=0))

    compare("(\\frac{1}{2}, x^2+1, 10\\%)", "(0.5, 1+x^2, 10)")  # loads what is loaded at first use
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)  # nothing a library prints can pass for a verdict
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _out_of_time)
    sys.addaudithook(_no_evaluation)
    os.write(out, b"ready\n")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        verdict: bool | None = None
        try:
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            try:
                verdict = compare(request["gold"], request["answer"])
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except (_OutOfTimeError, MemoryError):
            verdict = None
        except Exception:  # whatever a library makes of odd text, odd text is not the right answer
            verdict = False
        os.write(out, json.dumps(verdict).encode() + b"\n")


if __name__ == "__main__":
    main()
