"""Compares mathematical answers by math-verify, in a process of its own.

Started by path; of hyperscale it imports `expressions` alone.

Protocol: one JSON line in, ``{"gold", "answer", "seconds"}`` for a comparison or ``{"value", "seconds"}`` for the value
of a constant; one JSON line out, ``{"result", "spent", "refused"}``: true or false, or the value as text or null;
whether the limit on CPU time or memory was reached; what a guard refused.

Model text is only ever parsed. math-verify's plain extractor, and SymPy wherever it is given a string, a number for
instance, go through Python's ``eval``: the extractor is left out, SymPy's parser is replaced by one that reads numbers,
and from the first request on this process refuses to compile or run any code that does not come from an installed file.

The libraries must never meet these guards themselves, since they swallow what is raised and then find answers
unequal. So what SymPy writes and runs as code at first use is loaded before (`_load_lazy_parts`), generators of code
from nothing but a number are let through (`_GENERATORS`), and a refusal is always reported.
"""

import collections
import contextlib
import dataclasses
import importlib
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


_refusals: list[str] = []  # since the request began
_GENERATORS: set[CodeType] = {  # functions of libraries that run code which they write themselves, without any input's
    collections.namedtuple.__code__,
    dataclasses._create_fn.__code__,  # type: ignore[attr-defined]
}


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
        _refusals.append(event)
        raise PermissionError(f"{event} is not available to the math grader")
    else:
        return
    if name.endswith((".py", ".pyc")) or name.startswith("<frozen ") or sys._getframe(1).f_code in _GENERATORS:
        return
    _refusals.append(f"{event} {name}")
    raise PermissionError("the math grader evaluates no text")


def _read_numbers_only() -> None:
    """Put a reader of decimal numbers in the place of SymPy's parser, which evaluates what it reads as Python."""
    from sympy import Expr, Float, Integer, Rational  # type: ignore[import-untyped]
    from sympy.parsing import sympy_parser  # type: ignore[import-untyped]

    def number(text: str, *_: Any, **__: Any) -> Expr:
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return Integer(int(text))
        if re.fullmatch(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", text):
            return Float(text)
        if fraction := re.fullmatch(r"([+-]?[0-9]+)/([1-9][0-9]*)", text):  # in SymPy's own tables
            return Rational(int(fraction.group(1)), int(fraction.group(2)))
        _refusals.append(f"sympify {text[:40]}")
        raise ValueError("not a decimal number")

    sympy_parser.parse_expr = number


def _polynomials_only() -> None:
    """Put polynomials in the place of the functions that SymPy writes as code to sum series and to refine roots."""
    import mpmath  # type: ignore[import-untyped]
    from sympy import Poly

    evalf = importlib.import_module("sympy.core.evalf")
    rootoftools = importlib.import_module("sympy.polys.rootoftools")

    def number(coefficient: Any) -> Any:
        if coefficient.is_Integer:
            return int(coefficient)
        real, imaginary = coefficient.as_real_imag()
        return mpmath.mpc(mpmath.mpf(real.p) / real.q, mpmath.mpf(imaginary.p) / imaginary.q)

    def function(variable: Any, expression: Any, *_: Any, **__: Any) -> Any:
        coefficients = [number(coefficient) for coefficient in Poly(expression, variable).all_coeffs()]

        def value(argument: Any) -> Any:
            total = 0
            for coefficient in coefficients:
                total = total * argument + coefficient
            return total

        return value

    for module in (evalf, rootoftools):
        vars(module)["lambdify"] = function


# Pairs that lead through the parts of the libraries that are loaded at first use.
_WARM_UP = (
    (r"(\frac{1}{2}, x^2+1, 10\%)", "(0.5, 1+x^2, 10)"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"[3,\infty)", r"x\ge 3"),
    ("x^2+y^2+z^2=1", "2z^2+2y^2+2x^2=2"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\log_2 x+\log_2 3", r"\log_2 3x"),
    (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}"),
    (r"\binom{n}{2}", r"\frac{n!}{2(n-2)!}"),
    (r"e^{i\pi}", "-1"),
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
    (r"\sum_{n=1}^{\infty}\frac{1}{n^3}", "1"),
)


_LAZY = (
    "sympy.physics.units",  # its prefixes go through `sympify("yotta")`
    "sympy.sets.handlers.intersection",
    "sympy.solvers.inequalities",
    "sympy.solvers.solveset",
)


def _load_lazy_parts() -> None:
    """Load what SymPy loads at first use by running code that it writes, which the guards would refuse later."""
    for module in _LAZY:
        importlib.import_module(module)
    from sympy.polys.monomials import MonomialOps  # type: ignore[import-untyped]

    _GENERATORS.add(MonomialOps._build.__code__)  # writes a function for a number of variables


def main() -> None:
    """Answer requests until standard input ends."""
    from hyperscale.scoring.graders.maths.expressions import compare, evaluate, parse_latex

    _load_lazy_parts()
    _polynomials_only()
    from math_verify import verify

    for pair in _WARM_UP:
        compare(*pair)
        verify(*parse_latex(*pair), timeout_seconds=0)
    _read_numbers_only()
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
        result: bool | str | None = None
        spent = False
        _refusals.clear()
        try:
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            try:
                if "value" in request:
                    result = evaluate(request["value"])
                else:
                    result = compare(request["gold"], request["answer"])
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except (_OutOfTimeError, MemoryError):
            spent = True
        except Exception:  # whatever a library makes of odd text, odd text is not the right answer
            result = None
        os.write(out, json.dumps({"result": result, "spent": spent, "refused": _refusals}).encode() + b"\n")


if __name__ == "__main__":
    main()
