r"""Decides whether two answers are the same: compares the parts that `structure` takes them apart into.

Lists, pairs, intervals, sets, matrices, equations, inequalities, units, words and rational numbers are compared here;
single expressions by whoever is asked, which is math-verify. docs/graders.md states the rules.
"""

import re
import zlib
from collections.abc import Callable, Sequence

from hyperscale.scoring.graders.maths.latex import write_plain
from hyperscale.scoring.graders.maths.latex_commands import CLOSE, OPEN, ROW
from hyperscale.scoring.graders.maths.rationals import Number, read_number, same_number, write_decimals_as_fractions
from hyperscale.scoring.graders.maths.structure import (
    Relation,
    drop_brackets,
    drop_indices,
    drop_membership,
    drop_repeated,
    drop_shared_name,
    exact_side,
    find_variable,
    is_constant,
    is_equation,
    is_inequality,
    is_name,
    kind_of_name,
    list_readings,
    open_outwards,
    read_items,
    read_matrix,
    read_names,
    read_region,
    read_relation,
    read_set,
    read_time,
    read_tuple,
    split_outside_brackets,
    value_of,
    values_by_name,
)
from hyperscale.scoring.graders.maths.units import Quantity, drop_label, has_words, phrase, split_unit

_MAX_DEPTH = 12
_MAX_ITEMS = 64
_MAX_QUESTIONS = 200  # to the judge of expressions, about two answers: long lists compare many pairs

_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")


class OutOfLimitsError(Exception):
    """A comparison takes more than it may; the answers count as different."""


class Comparison:
    """Compares answers.

    Args:
        same_expression: Whether two expressions of LaTeX, without structure, units or words, are equal; the first is
            the target's. It may raise `OutOfLimitsError`.
    """

    def __init__(self, same_expression: Callable[[str, str], bool]) -> None:
        self._same_expression = same_expression
        self._questions = 0

    def equal(self, target: str, answer: str) -> bool:
        """Whether an answer says what the target says, both as a model or a data set writes them."""
        first, second = open_outwards(write_plain(target)), open_outwards(write_plain(answer))
        if not first or not second:
            return False
        if first == second:
            return True
        self._questions = 0
        try:
            return any(
                self._equal(drop_label(a), drop_label(b), 0)
                for a in list_readings(first)
                for b in list_readings(second)
            )
        except OutOfLimitsError:
            return False

    def _equal(self, target: str, answer: str, depth: int) -> bool:
        if target == answer:
            return bool(target)
        if depth > _MAX_DEPTH or not target or not answer:
            return False
        target, answer, depth = drop_membership(target), drop_membership(answer), depth + 1
        for compare in (self._as_lists, self._as_relations, self._as_regions, self._as_brackets, self._as_matrices):
            verdict = compare(target, answer, depth)
            if verdict is not None:
                return verdict
        return self._as_quantities(target, answer, depth)

    # Each of the following gives None where the two answers are no matter of its own.

    def _as_lists(self, target: str, answer: str, depth: int) -> bool | None:
        first, second = read_items(target), read_items(answer)
        if len(first) == 1 and len(second) == 1:
            return None
        if len(first) > _MAX_ITEMS or len(second) > _MAX_ITEMS:
            return False
        region = read_region(target), read_region(answer)
        if (
            region[0]
            and region[1]
            and (is_inequality(first[0]) or is_inequality(second[0]) or r"\cup" in target or r"\cup" in answer)
        ):
            return self._same_regions(region[0], region[1], depth)
        if r"\text{and}" in (target + answer).lower() and any(map(is_inequality, (*first, *second))):
            return self._same_joined(target, answer, depth)
        pair = read_tuple(value_of(target)), read_tuple(value_of(answer))
        if (
            len(first) == 1 and pair[0] and pair[0][0] == "()" and OPEN not in answer
        ):  # a pair written without brackets, or with names
            values = values_by_name(second)
            return len(values) == len(pair[0][1]) and all(map(self._equal, pair[0][1], values, [depth] * len(values)))
        if len(second) == 1 and pair[1] and pair[1][0] == "()" and OPEN not in target:
            values = values_by_name(first)
            return len(values) == len(pair[1][1]) and all(map(self._equal, values, pair[1][1], [depth] * len(values)))
        if not any("_{" in name for name in read_names(second)):
            first = drop_indices(first)
        names = read_names(first), read_names(second)
        if not (len(set(names[0])) > 1 and len(set(names[1])) > 1):
            first, second = drop_shared_name(first), drop_shared_name(second)
        if len(first) != len(second):
            return False
        return self._match(first, second, depth)

    def _same_joined(self, target: str, answer: str, depth: int) -> bool:
        """Inequalities of which all must hold."""
        pieces = [split_outside_brackets(text, r"(?i:\\text\{and\})") for text in (target, answer)]
        return len(pieces[0]) == len(pieces[1]) > 1 and self._match(pieces[0], pieces[1], depth)

    def _match(self, first: Sequence[str], second: Sequence[str], depth: int) -> bool:
        """Whether the items are the same in some order."""
        left = list(second)
        rest = []
        for item in first:
            if item in left:
                left.remove(item)
            else:
                rest.append(item)
        return self._match_rest(rest, left, depth)

    def _match_rest(self, first: Sequence[str], second: Sequence[str], depth: int) -> bool:
        if not first:
            return not second
        for i, item in enumerate(second):
            if self._equal(first[0], item, depth):
                return self._match_rest(first[1:], [*second[:i], *second[i + 1 :]], depth)
        return False

    def _as_relations(self, target: str, answer: str, depth: int) -> bool | None:
        first, second = read_relation(target), read_relation(answer)
        if first is None and second is None:
            return None
        if first is not None and second is not None:
            if is_equation(first) and is_equation(second):
                return self._same_equations(first, second, target, answer, depth)
            if first.operators == second.operators and all(
                map(self._equal, first.parts, second.parts, [depth] * len(first.parts))
            ):
                return True
        if second is not None and first is None and r"\approx" in second.operators:
            return self._equal(target, exact_side(second), depth)
        said = {"=", r"\in"} if r"\text{mod" in answer else {"=", r"\in", r"\equiv"}
        if second is not None and first is None and set(second.operators) <= said:
            last = second.parts[-1]
            if set(second.operators) == {"="} and is_name(last) and not is_name(second.parts[0]):
                last = second.parts[0]
            return self._equal(target, last, depth)
        if first is not None and second is None and set(first.operators) <= {"=", r"\in"}:
            if r"\in" in first.operators and len(first.parts) == 2:
                return self._equal(first.parts[1], answer, depth)
            return is_name(first.parts[0]) and self._equal(first.parts[-1], answer, depth)
        regions = read_region(target), read_region(answer)
        if regions[0] and regions[1]:
            if first and second and (find_variable(first) != find_variable(second)):
                return False
            return self._same_regions(regions[0], regions[1], depth)
        return self._ask(target, answer)

    def _same_equations(self, first: Relation, second: Relation, target: str, answer: str, depth: int) -> bool:
        name, other = first.parts[0], second.parts[0]
        if is_name(name) and (name == other or {kind_of_name(name), kind_of_name(other)} <= {"f(x)", "y"}):
            return self._equal(first.parts[-1], second.parts[-1], depth)
        if is_name(name) and is_name(second.parts[-1]) and name == second.parts[-1]:
            return self._equal(first.parts[-1], second.parts[0], depth)
        if len(first.parts) == 2 == len(second.parts) and not is_name(name):
            both = self._equal(name, other, depth) and self._equal(first.parts[1], second.parts[1], depth)
            if both:
                return True
        if is_name(name) and is_name(other) and is_constant(first.parts[-1]) and is_constant(second.parts[-1]):
            # The same value of something else; AB and BA are one.
            return sorted(name) == sorted(other) and self._equal(first.parts[-1], second.parts[-1], depth)
        return self._ask(target, answer)

    def _as_regions(self, target: str, answer: str, depth: int) -> bool | None:
        """Unions of intervals."""
        if r"\cup" not in target and r"\cup" not in answer:
            return None
        regions = read_region(target), read_region(answer)
        if regions[0] and regions[1]:
            return self._same_regions(regions[0], regions[1], depth)
        first, second = split_outside_brackets(target, r"\\cup ?"), split_outside_brackets(answer, r"\\cup ?")
        if len(first) == len(second) and self._match(first, second, depth):
            return True
        return self._ask(target, answer)

    def _same_regions(self, first: list[str], second: list[str], depth: int) -> bool:
        if len(first) == len(second) and self._match(first, second, depth):
            return True
        return self._ask(r"\cup ".join(first), r"\cup ".join(second))

    def _as_brackets(self, target: str, answer: str, depth: int) -> bool | None:
        pair = read_tuple(target), read_tuple(answer)
        if pair[0] is None and pair[1] is None:
            sets = read_set(target), read_set(answer)
            if sets[0] is not None or sets[1] is not None:
                return self._same_sets(target, answer, sets, depth)
            return None
        if pair[0] is None or pair[1] is None:
            region = read_region(target), read_region(answer)
            if region[0] and region[1]:
                return self._same_regions(region[0], region[1], depth)
            if OPEN in target + answer and "|" not in target + answer:
                return False
            if any(mark in target + answer for mark in (r"\mathbb", r"\setminus", r"\cap", OPEN)):
                return self._ask(target, answer)
            # A unit behind a pair.
            quantities = split_unit(target), split_unit(answer)
            if quantities[0].unit or quantities[1].unit:
                return self._equal(quantities[0].value, quantities[1].value, depth)
            return False
        (brackets, items), (other, values) = pair[0], pair[1]
        if brackets != other or len(items) != len(values):
            return False
        return all(map(self._equal, items, values, [depth] * len(items)))

    def _same_sets(self, target: str, answer: str, sets: tuple[list[str] | None, list[str] | None], depth: int) -> bool:
        if sets[0] is not None and sets[1] is not None:
            return self._as_lists_of(drop_repeated(sets[0]), drop_repeated(sets[1]), depth)
        if sets[0] is not None and len(sets[0]) == 1 and read_region(answer) is None:
            return self._equal(sets[0][0], answer, depth)
        if sets[1] is not None and len(sets[1]) == 1 and read_region(target) is None:
            return self._equal(target, sets[1][0], depth)
        regions = read_region(target), read_region(answer)
        if regions[0] and regions[1]:
            return self._same_regions(regions[0], regions[1], depth)
        if has_words(target) or has_words(answer):
            return phrase(target) == phrase(answer)
        return self._ask(target, answer)

    def _as_lists_of(self, first: list[str], second: list[str], depth: int) -> bool:
        return len(first) == len(second) and self._match(first, second, depth)

    def _as_matrices(self, target: str, answer: str, depth: int) -> bool | None:
        first, second = read_matrix(target), read_matrix(answer)
        if first is None or second is None:
            if r"\begin{" in target or r"\begin{" in answer:
                return phrase(target) == phrase(answer) if has_words(target + answer) else self._ask(target, answer)
            return None
        if [len(row) for row in first] != [len(row) for row in second]:
            return False
        cells = [cell for row in first for cell in row], [cell for row in second for cell in row]
        return all(map(self._equal, *cells, [depth] * len(cells[0])))

    def _as_quantities(self, target: str, answer: str, depth: int) -> bool:
        inner = drop_brackets(target), drop_brackets(answer)
        if inner != (target, answer):
            return self._equal(*inner, depth)
        times = read_time(target), read_time(answer)
        if times != (None, None):
            return times[0] == times[1]
        ratio = target.split(":"), answer.split(":")
        if len(ratio[0]) > 1 and len(ratio[0]) == len(ratio[1]) and not has_words(target + answer):
            return _same_ratio(*ratio) or all(map(self._equal, *ratio, [depth] * len(ratio[0])))
        first, second = split_unit(target), split_unit(answer)
        if (first.value, second.value) != (target, answer):
            first_value, second_value = drop_brackets(first.value), drop_brackets(second.value)
            first, second = first._replace(value=first_value), second._replace(value=second_value)
        if self._same_quantities(first, second):
            return True
        # A single letter in text behind a number is a unit or a variable.
        letters = _with_letters(target), _with_letters(answer)
        if letters != (target, answer) and self._equal(*letters, depth):
            return True
        if has_words(first.value) or has_words(second.value):
            return bool(phrase(target)) and phrase(target) == phrase(answer)
        return False

    def _same_quantities(self, first: Quantity, second: Quantity) -> bool:
        if first.unit == second.unit or not first.unit or not second.unit:
            if self._same_values(first.value, second.value):
                return True
            # A share is a number too: 10 % is 0.1, and data sets also write 10.
            if "%" in (first.unit, second.unit) and first.unit != second.unit:
                values = [
                    rf"({q.value})\cdot (\frac{{1}}{{100}})" if q.unit == "%" else q.value for q in (first, second)
                ]
                return self._same_values(values[0], values[1])
            return False
        if not first.dimension or first.dimension != second.dimension:
            return False
        ratio = second.size / first.size
        scaled = rf"({second.value})\cdot (\frac{{{ratio.numerator}}}{{{ratio.denominator}}})"
        return self._same_values(first.value, scaled)

    def _same_values(self, first: str, second: str) -> bool:
        if first == second:
            return bool(first)
        numbers = read_number(first), read_number(second)
        if numbers[0] is not None and numbers[1] is not None:
            return same_number(numbers[0], numbers[1])
        return self._ask(first, second)

    def _ask(self, target: str, answer: str) -> bool:
        """The verdict of math-verify; text that it would misread is compared by the letter."""
        if has_words(target) or has_words(answer):
            return bool(phrase(target)) and phrase(target) == phrase(answer)
        self._questions += 1
        if self._questions > _MAX_QUESTIONS:
            raise OutOfLimitsError
        return self._same_expression(target, answer)


def _same_ratio(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the parts are numbers above 0 in the same proportion: ``2:4`` is ``1:2``, but ``4:20`` may be a time."""
    if all(re.fullmatch("(?:1?[0-9]|2[0-4]):[0-5][0-9]", ":".join(parts)) for parts in (first, second)):
        return False  # times of day
    numbers = [[read_number(part) for part in parts] for parts in (first, second)]
    values = [[number.value for number in row if number is not None and number.value > 0] for row in numbers]
    if not len(values[0]) == len(values[1]) == len(first):
        return False
    return len({one / other for one, other in zip(*values, strict=True)}) == 1


def _with_letters(text: str) -> str:
    r"""The answer with single letters in text as variables."""
    return re.sub(r"\\text\{([A-Za-z])\}", r"\1", text)


_CAPITAL = re.compile(
    r"\\(?:mathbb|begin|end|text|operatorname)\{[^{}]*\}|(?P<name>\\[A-Z][a-z]+ ?|[A-Z](?!\())"
    r"(?:_\{(?P<index>[^{}]*)\})?|\\[A-Za-z]+"
)


def _small_name(match: re.Match[str]) -> str:
    """A name of small letters for a capital one, which math-verify's grammar takes for the same variable."""
    if not match.group("name"):
        return match.group()
    index = "" if match.group("index") is None else f"0{zlib.crc32(match.group('index').encode())}"
    return f"x_{{9{zlib.crc32(match.group('name').strip().encode()) % 10_000}{index}}}"


def write_for_sympy(text: str) -> str:
    """Plain LaTeX as math-verify's grammar reads it."""
    text = re.sub(r"\\sqrt\[([3579])\]\{-([^-+{}]+)\}", r"(-\\sqrt[\1]{\2})", text)  # the real root
    text = _CAPITAL.sub(_small_name, text.replace("'", r"^{\prime }"))
    text = text.replace(OPEN, r"\{").replace(CLOSE, r"\}").replace("%", r"\%").replace(ROW, r"\\")
    if _TRIG.search(text):
        text = re.sub(r"([0-9.]+|\\frac\{[^{}]*\}\{[^{}]*\}|\([^()]*\)|[a-z])°", r"(\1\\cdot \\frac{\\pi}{180})", text)
    return write_decimals_as_fractions(text.replace("°", ""))


def read_decimal(text: str) -> Number | None:
    """The number of a text that is one decimal with so many places that it may stand for an irrational number."""
    number = read_number(text)
    return number if number is not None and number.places is not None and number.places >= 6 else None
