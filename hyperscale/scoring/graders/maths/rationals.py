r"""Reads numbers exactly: fractions, mixed numbers, repeating decimals, bases, and arithmetic on them.

The input is plain LaTeX (see `latex`). ``0.\overline{3}`` is 1/3, ``2\frac{3}{4}`` is 11/4, ``1.2\cdot10^{4}`` is
12000, ``1011_{2}`` is 11. What is no rational number, or too large to write out, is none here.
"""

import math
import re
from fractions import Fraction
from typing import NamedTuple

_MAX_BITS = 40_000  # of a numerator or denominator
_MAX_FACTORIAL = 2_000
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}

# The least places of a decimal that may stand for a number without end, and the least digits that it must say.
PLACES = 6
_DIGITS = 5


class Number(NamedTuple):
    """A rational number as an answer writes it.

    Attributes:
        value: The number.
        places: Digits behind the point, if the whole answer is one decimal that ends; else None.
    """

    value: Fraction
    places: int | None = None


class _NoNumberError(Exception):
    """The text is no number, or none that is worth writing out."""


_REPEATING = r"(?:\\overline\{[0-9]+\}|\\dot\{[0-9]\}(?:[0-9]*\\dot\{[0-9]\})?|\([0-9]+\))"
_DECIMAL = re.compile(rf"(?P<whole>[0-9]*)(?:\.(?P<part>[0-9]*)(?P<cycle>{_REPEATING})?(?P<more>\\ldots ?)?)?")
_BASE = re.compile(r"\(?(?:\\text\{)?([0-9A-Za-z]+)\}?\)?_\{(?:\\text\{)?\(?([0-9]+|[a-z]+)\)?\}?\}")
_ROOT = re.compile(r"\\sqrt(?:\[([0-9]{1,2})\])?\{")
_PROPER = re.compile(r" ?\\frac\{([0-9]+)\}\{([0-9]+)\}| ([0-9]+)/([0-9]+)(?![0-9])")


def read_number(text: str) -> Number | None:
    """The number that a plain answer writes, or None."""
    if not text or not re.search(r"[0-9]", text):
        return None
    reader = _Reader(text)
    try:
        value = reader.sum()
    except (_NoNumberError, ZeroDivisionError, RecursionError):
        return None
    if reader.place != len(text):
        return None
    decimal = re.fullmatch(r"[+-]?[0-9]*\.([0-9]+)(?:\\ldots ?)?", text)
    return Number(value, len(decimal.group(1)) if decimal else None)


def same_number(first: Number, second: Number) -> bool:
    """Whether two numbers are one: exactly, or as `approximates` says."""
    return first.value == second.value or approximates(first, second.value) or approximates(second, first.value)


def approximates(decimal: Number, value: Fraction) -> bool:
    """Whether a decimal stands for a value that no decimal is: rounded or cut after at least `PLACES` places.

    A value that a decimal can say exactly has no other decimal.
    """
    if decimal.places is None or _is_decimal(value):
        return False
    return rounds_to(decimal, value)


def rounds_to(decimal: Number, value: Fraction) -> bool:
    """Whether a decimal is a value, rounded or cut after at least `PLACES` places, in at least five digits."""
    places = decimal.places or 0
    digits = len(str(abs(decimal.value.numerator * 10**places // decimal.value.denominator))) if decimal.value else 0
    if places < PLACES or digits < _DIGITS:
        return False
    scaled = abs(value) * 10**places
    written = abs(decimal.value) * 10**places
    # The last digits of floats are noise.
    return (decimal.value < 0) == (value < 0) and (
        written in (math.floor(scaled), math.floor(scaled + Fraction(1, 2))) or abs(written - scaled) < scaled / 10**12
    )


def is_long_decimal(number: Number) -> bool:
    """Whether the number is a decimal with enough places to stand for an irrational one."""
    return number.places is not None and number.places >= PLACES


def write_decimals_as_fractions(text: str) -> str:
    r"""Plain LaTeX in which decimals, repeating ones too, are fractions: SymPy's are then exact."""

    def fraction(match: re.Match[str]) -> str:
        number = read_number(match.group())
        if number is None or "." not in match.group():
            return match.group()
        return rf"(\frac{{{number.value.numerator}}}{{{number.value.denominator}}})"

    return re.sub(rf"(?<![0-9.])[0-9]*\.(?:[0-9]+{_REPEATING}?|{_REPEATING})(?:\\ldots ?)?", fraction, text)


def _is_decimal(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


class _Reader:
    """Recursive descent over a plain answer."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0

    def _at(self, *starts: str) -> str | None:
        for start in starts:
            if self.text.startswith(start, self.place):
                self.place += len(start)
                return start
        return None

    def _expect(self, text: str) -> None:
        if not self._at(text):
            raise _NoNumberError

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > 40:
            raise _NoNumberError
        total = self.product()
        while sign := self._at("+", "-"):
            term = self.product()
            total = _limited(total + term if sign == "+" else total - term)
        self.depth -= 1
        return total

    def product(self) -> Fraction:
        sign = 1
        while mark := self._at("+", "-"):
            sign = -sign if mark == "-" else sign
        total = self.power()
        while True:
            if self._at(r"\cdot ", r"\cdot"):
                total = _limited(total * self.signed_power())
            elif self._at("/", r"\div ", r"\div"):
                total = _limited(total / self.signed_power())
            elif self.text.startswith(("(", r"\frac"), self.place):
                total = _limited(total * self.power())
            else:
                return sign * total

    def signed_power(self) -> Fraction:
        sign = -1 if self._at("-") else 1
        return sign * self.power()

    def power(self) -> Fraction:
        base = self.atom()
        while True:
            if self._at("!"):
                if base.denominator != 1 or not 0 <= base <= _MAX_FACTORIAL:
                    raise _NoNumberError
                base = Fraction(math.factorial(int(base)))
            elif self._at("^{"):
                exponent = self.sum()
                self._expect("}")
                base = _power(base, exponent)
            else:
                return base

    def atom(self) -> Fraction:
        if based := _BASE.match(self.text, self.place):
            value = _in_base(based.group(1), based.group(2))
            self.place = based.end()
            return value
        if self._at("("):
            value = self.sum()
            self._expect(")")
            return value
        if self._at(r"\frac{"):
            top = self.sum()
            self._expect("}{")
            bottom = self.sum()
            self._expect("}")
            return top / bottom
        if self._at(r"\binom{"):
            n = self.sum()
            self._expect("}{")
            k = self.sum()
            self._expect("}")
            if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= _MAX_FACTORIAL:
                raise _NoNumberError
            return Fraction(math.comb(int(n), int(k)))
        if root := _ROOT.match(self.text, self.place):
            self.place = root.end()
            value = self.sum()
            self._expect("}")
            return _root(value, int(root.group(1) or 2))
        return self.literal()

    def literal(self) -> Fraction:
        match = _DECIMAL.match(self.text, self.place)
        if match is None or not match.group() or match.group() == ".":
            raise _NoNumberError
        self.place = match.end()
        value = _decimal(match)
        if match.group("part") is None and (proper := _PROPER.match(self.text, self.place)):
            top, bottom = (int(part) for part in proper.groups() if part is not None)
            if top < bottom:
                self.place = proper.end()
                return value + Fraction(top, bottom)
        if self.text.startswith(" ", self.place):
            raise _NoNumberError  # two numbers side by side
        return value


def _decimal(match: re.Match[str]) -> Fraction:
    whole, part, cycle = match.group("whole") or "0", match.group("part") or "", match.group("cycle")
    if cycle is None and match.group("more"):
        part, cycle = _find_cycle(part)
    start = Fraction(_digits(whole + part), 10 ** len(part))
    if cycle is None:
        return start
    repeated = re.sub("[^0-9]", "", cycle)
    return start + Fraction(_digits(repeated), (10 ** len(repeated) - 1) * 10 ** len(part))


def _find_cycle(part: str) -> tuple[str, str | None]:
    """Digits before the cycle, and the cycle, of a decimal that goes on: 1666… repeats the 6, and 3… nothing yet."""
    for length in range(1, len(part) // 2 + 1):
        cycle = part[-length:]
        count = 1
        while part[: len(part) - count * length].endswith(cycle):
            count += 1
        if count >= (3 if length == 1 else 2):
            return part[: len(part) - count * length], cycle
    return part, None


def _digits(text: str) -> Fraction:
    if len(text) > 4_000:
        raise _NoNumberError
    return Fraction(int(text))


def _in_base(digits: str, base: str) -> Fraction:
    radix = int(base) if base.isdigit() and len(base) < 4 else _BASES.get(base, 0)
    if not 2 <= radix <= 36:
        raise _NoNumberError
    try:
        return Fraction(int(digits, radix))
    except ValueError:
        raise _NoNumberError from None


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MAX_BITS:
        raise _NoNumberError
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > _MAX_BITS and abs(base) != 1:
        raise _NoNumberError
    return base ** int(exponent)


def _root(value: Fraction, degree: int) -> Fraction:
    """The root, where it is rational; the real one of a negative number."""
    if not 2 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        raise _NoNumberError
    root = Fraction(_whole_root(abs(value.numerator), degree), _whole_root(value.denominator, degree))
    if root**degree != abs(value):
        raise _NoNumberError
    return root if value >= 0 else -root


def _whole_root(number: int, degree: int) -> int:
    """The root, rounded down (Newton)."""
    if number < 2:
        return number
    root = 1 << -(-number.bit_length() // degree)
    while True:
        closer = ((degree - 1) * root + number // root ** (degree - 1)) // degree
        if closer >= root:
            return root
        root = closer


def _limited(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _MAX_BITS:
        raise _NoNumberError
    return value
