"""Compares single mathematical expressions by math-verify and SymPy.

Runs in the worker's process only (`worker`), which sets the limits and guards: model text is parsed here.
"""

from typing import Any

_POINTS = 8  # at which expressions with variables are compared
_DIGITS = 150  # in which two values must agree: 2^{200} π and 2^{200} π + 1 differ in the 61st
_MOST_DIGITS = 500  # that are computed where most of them cancel out


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
    from sympy import Complement, Intersection, Union  # type: ignore[import-untyped]

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
    numbers below 10^-15 for zero. So are equations. Everything else, and what has no value at the points, math-verify
    decides.
    """
    from math_verify import verify
    from sympy import Eq

    first, second = parse_latex(gold, answer)
    same = same_values(first, second)
    if same is not None:
        return same
    if isinstance(first, Eq) and isinstance(second, Eq):
        return same_equations(first, second)
    return bool(verify(first, second, allow_set_relation_comp=True, timeout_seconds=0))


def same_values(first: Any, second: Any) -> bool | None:
    """Whether two expressions have the same value wherever it is tried; None if they are no expressions or have none.

    Values agree if they do in `_DIGITS` digits. Variables are real; points are of both signs. Where one of two real
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
    symbols = _symbols(first, second)
    agreed = 0
    for point in range(_POINTS if symbols else 1):
        values = {symbol: _coordinate(place, point) for place, symbol in enumerate(symbols)}
        numbers = []
        for expression in (first, second):
            number = expression.subs(values).doit().evalf(_DIGITS + 10, maxn=_MOST_DIGITS)
            real, imaginary = number.as_real_imag()
            if not (real.is_finite and imaginary.is_finite and isinstance(real, Number)):
                break
            if symbols and imaginary and not complex_numbers:
                break  # outside the domain
            numbers.append(real + I * imaginary)
        if len(numbers) < 2:
            continue
        size = max(map(_size, numbers))
        if size > 1e-250 and _size(numbers[0] - numbers[1]) > size * Rational(1, 10**_DIGITS):
            return False
        agreed += 1
    return True if agreed >= (1 if not symbols else 3) else None


def _symbols(*trees: Any) -> list[Any]:
    return sorted(set().union(*(tree.free_symbols for tree in trees)), key=str)


def _coordinate(place: int, point: int) -> Any:
    """A rational number for the variable of that place: positive at the first points, then of either sign."""
    from sympy import Rational

    sign = -1 if point >= _POINTS // 2 and (point + place) % 2 else 1
    return sign * Rational(37 + 22 * place + 31 * point, (29 + 7 * place) * (9 if point % 2 else 1))


def _size(number: Any) -> Any:
    real, imaginary = number.as_real_imag()
    return abs(real) + abs(imaginary)


def same_equations(first: Any, second: Any) -> bool:
    """Whether one equation is a multiple of the other, or both have the same solutions, and some."""
    from sympy import solve

    sides = [equation.lhs - equation.rhs for equation in (first, second)]
    if any(same_values(sides[0] * factor, sides[1]) for factor in _factors(*sides)):
        return True
    if first.free_symbols != second.free_symbols or not first.free_symbols:
        return False
    symbol = min(first.free_symbols, key=str)
    left, right = (solve(equation, symbol) for equation in (first, second))
    if not left or len(left) != len(right):
        return False
    for solution in left:
        twin = next((other for other in right if same_values(solution, other)), None)
        if twin is None:
            return False
        right.remove(twin)
    return True


def _factors(first: Any, second: Any) -> list[Any]:
    """By what the first expression must be multiplied to give the second: their ratio at a point, if it has one."""
    values = {symbol: _coordinate(place, 1) for place, symbol in enumerate(_symbols(first, second))}
    below = first.subs(values)
    ratio = None if below.is_zero else second.subs(values) / below
    return [ratio] if ratio is not None and ratio.is_finite else []


def evaluate(text: str) -> str | None:
    """The value of a real constant in 40 digits, or None."""
    from sympy import Expr, Float

    (tree,) = parse_latex(text)
    if not isinstance(tree, Expr) or tree.free_symbols:
        return None
    value = tree.doit().evalf(40, maxn=300)
    return str(value) if isinstance(value, Float) or value.is_Integer else None
