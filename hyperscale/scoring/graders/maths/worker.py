"""Compares mathematical answers by math-verify, in a process of its own.

Started by path; imports nothing from the rest of hyperscale.

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
    from sympy import Expr, Float, Integer  # type: ignore[import-untyped]
    from sympy.parsing import sympy_parser  # type: ignore[import-untyped]

    def number(text: str, *_: Any, **__: Any) -> Expr:
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return Integer(int(text))
        if re.fullmatch(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", text):
            return Float(text)
        _refusals.append(f"sympify {text[:40]}")
        raise ValueError("not a decimal number")

    sympy_parser.parse_expr = number


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


def parse_latex(*texts: str) -> list[Any]:
    """SymPy's tree of each LaTeX text, whole: units have been dropped before.

    Variables are real unless one of the texts speaks of complex numbers.

    Raises:
        Exception: A text is not in the grammar.
    """
    from latex2sympy2_extended import NormalizationConfig, latex2sympy  # type: ignore[import-untyped]
    from math_verify.grader import should_treat_as_complex

    real = not any(map(should_treat_as_complex, texts))
    normalization = NormalizationConfig(
        basic_latex=True, malformed_operators=True, nits=True, boxed="none", units=False
    )
    trees = [
        latex2sympy(text, is_real=real, convert_degrees=False, normalization_config=normalization) for text in texts
    ]
    return [_evaluated_set(_with_imaginary_unit(tree)) for tree in trees]


def _evaluated_set(tree: Any) -> Any:
    """The tree with intersections and differences of sets carried out."""
    from sympy import Complement, Intersection, Union

    return tree.doit() if isinstance(tree, Complement | Intersection | Union) else tree


def _with_imaginary_unit(tree: Any) -> Any:
    """The tree with the imaginary unit in place of the letter i."""
    from sympy import I

    letters = [symbol for symbol in tree.free_symbols if symbol.name == "i"]
    try:
        return tree.subs(dict.fromkeys(letters, I)) if letters else tree
    except (TypeError, ValueError):  # no order among complex numbers
        return tree


def compare(gold: str, answer: str) -> bool:
    """Whether two LaTeX answers are equal.

    Expressions are compared at points first: that is quicker than simplification, and exact where math-verify takes all
    numbers below 10^-15 for zero. Everything else, and what has no value at the points, math-verify decides.
    """
    from math_verify import verify

    first, second = parse_latex(gold, answer)
    same = same_values(first, second)
    if same is not None:
        return same
    if has_no_solution(first) and has_no_solution(second):
        return bool(first == second)  # math-verify finds all equations without solutions equal
    return bool(verify(first, second, allow_set_relation_comp=True, timeout_seconds=0))


def same_values(first: Any, second: Any) -> bool | None:
    """Whether two expressions have the same value wherever it is tried; None if they are no expressions or have none.

    Values agree if they do in 40 digits. Variables are real; points are of both signs. Where one of two real
    expressions is not real, they are not compared.
    """
    from sympy import Expr, Float, I, Integral, Limit, Number, Product, Rational, Sum, UnevaluatedExpr

    if not isinstance(first, Expr) or not isinstance(second, Expr):
        return None
    # A sum has a value between the integers too, but not the one that is meant; floats are not exact.
    if any(tree.has(Sum, Product, Integral, Limit, Float) for tree in (first, second)):
        return None
    first, second = (tree.replace(UnevaluatedExpr, lambda inner: inner) for tree in (first, second))
    complex_numbers = first.has(I) or second.has(I)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    agreed = 0
    for point in range(1 if not symbols else 5):
        values = {
            symbol: Rational(37 + 22 * i + 31 * point, 29 + 7 * i) * (-1) ** (point + i * (point // 2))
            for i, symbol in enumerate(symbols)
        }
        numbers = []
        for expression in (first, second):
            number = expression.subs(values).doit().evalf(50, maxn=400)
            real, imaginary = number.as_real_imag()
            if not (real.is_finite and imaginary.is_finite and isinstance(real, Number)):
                break
            if symbols and imaginary and not complex_numbers:
                break  # outside the domain
            numbers.append(real + I * imaginary)
        if len(numbers) < 2:
            continue
        size = max(abs(complex_size) for complex_size in map(_size, numbers))
        if size > 1e-250 and _size(numbers[0] - numbers[1]) > size * Rational(1, 10**40):
            return False
        agreed += 1
    return True if agreed >= (1 if not symbols else 3) else None


def _size(number: Any) -> Any:
    real, imaginary = number.as_real_imag()
    return abs(real) + abs(imaginary)


def has_no_solution(tree: Any) -> bool:
    """Whether the tree is an equation that no real number solves, as far as SymPy can tell."""
    from sympy import Eq, solve

    return isinstance(tree, Eq) and bool(tree.free_symbols) and not solve(tree, tree.free_symbols)


def evaluate(text: str) -> str | None:
    """The value of a real constant in 40 digits, or None."""
    from sympy import Expr, Float

    (tree,) = parse_latex(text)
    if not isinstance(tree, Expr) or tree.free_symbols:
        return None
    value = tree.doit().evalf(40, maxn=300)
    return str(value) if isinstance(value, Float) or value.is_Integer else None


def main() -> None:
    """Answer requests until standard input ends."""
    _load_lazy_parts()
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
