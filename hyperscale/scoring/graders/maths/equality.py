r"""Decides whether two answers are the same: takes them apart, and compares the parts.

Lists, pairs, intervals, sets, matrices, equations, inequalities, units, words and rational numbers are compared here;
single expressions by whoever is asked, which is math-verify. docs/graders.md states the rules.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hyperscale.scoring.graders.maths.latex import CLOSE, OPEN, ROW, write_plain
from hyperscale.scoring.graders.maths.rationals import Number, read_number, same_number, write_decimals_as_fractions
from hyperscale.scoring.graders.maths.units import Quantity, drop_label, has_words, phrase, split_unit

_MAX_DEPTH = 12
_MAX_ITEMS = 64
_MAX_QUESTIONS = 200  # to the judge of expressions, about two answers: long lists compare many pairs

_OPENING, _CLOSING = "([{" + OPEN, ")]}" + CLOSE
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|notin|subset|subseteq|to|cong|sim|propto)(?![A-Za-z]) ?|[<>=]")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}
_OR, _AND = r"\text{or}", r"\text{and}"
_SEPARATOR = re.compile(r"[,;]*(?:\\text\{(?:or|and)\}|\\(?:lor|land)(?![A-Za-z]) ?)|[,;]", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_SCIENTIFIC = re.compile(r"(?<![0-9.A-Za-z}])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,3})(?![0-9.])")
# What names a value: x, x_1, f(x), f^{-1}(x), AB, \angle ABC, |z|, words.
_NAME = re.compile(
    r"(?:\\(?:angle|triangle|overline|vec|hat|tilde|dot) ?)*"
    r"(?:\{?\(?(?:[A-Za-z]|\\[A-Za-z]+ ?|\\text\{[^{}]*\}){1,5}\)?\}?'*)"
    r"(?:_\{[^{}]*\})?(?:\^\{(?:-1|\\prime ?|\*)\})?'*(?:\([A-Za-z0-9,]{1,9}\))?|\([A-Za-z](?:,[A-Za-z])+\)"
    r"|\|[A-Za-z]{1,3}\||(?:\\text\{[^{}]*\})+"
)
_INFINITE = re.compile(r"[+-]?\\infty ?")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{p?matrix\}(.*)\\end\{p?matrix\}", re.DOTALL)


class OutOfLimitsError(Exception):
    """A comparison takes more than it may; the answers count as different."""


@dataclass(frozen=True)
class _Relation:
    parts: tuple[str, ...]
    operators: tuple[str, ...]


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
        first, second = _open_outwards(write_plain(target)), _open_outwards(write_plain(answer))
        if not first or not second:
            return False
        if first == second:
            return True
        self._questions = 0
        try:
            return any(
                self._equal(drop_label(a), drop_label(b), 0) for a in _readings(first) for b in _readings(second)
            )
        except OutOfLimitsError:
            return False

    def _equal(self, target: str, answer: str, depth: int) -> bool:
        if target == answer:
            return bool(target)
        if depth > _MAX_DEPTH or not target or not answer:
            return False
        target, answer, depth = _without_membership(target), _without_membership(answer), depth + 1
        for compare in (self._as_lists, self._as_relations, self._as_regions, self._as_brackets, self._as_matrices):
            verdict = compare(target, answer, depth)
            if verdict is not None:
                return verdict
        return self._as_quantities(target, answer, depth)

    # Each of the following gives None where the two answers are no matter of its own.

    def _as_lists(self, target: str, answer: str, depth: int) -> bool | None:
        first, second = _items(target), _items(answer)
        if len(first) == 1 and len(second) == 1:
            return None
        if len(first) > _MAX_ITEMS or len(second) > _MAX_ITEMS:
            return False
        region = _region(target), _region(answer)
        if (
            region[0]
            and region[1]
            and (_is_inequality(first[0]) or _is_inequality(second[0]) or r"\cup" in target or r"\cup" in answer)
        ):
            return self._same_regions(region[0], region[1], depth)
        if r"\text{and}" in (target + answer).lower() and any(map(_is_inequality, (*first, *second))):
            return self._same_joined(target, answer, depth)
        pair = _tuple(_value(target)), _tuple(_value(answer))
        if (
            len(first) == 1 and pair[0] and pair[0][0] == "()" and OPEN not in answer
        ):  # a pair written without brackets, or with names
            values = _values_by_name(second)
            return len(values) == len(pair[0][1]) and all(map(self._equal, pair[0][1], values, [depth] * len(values)))
        if len(second) == 1 and pair[1] and pair[1][0] == "()" and OPEN not in target:
            values = _values_by_name(first)
            return len(values) == len(pair[1][1]) and all(map(self._equal, values, pair[1][1], [depth] * len(values)))
        if not any("_{" in name for name in _names(second)):
            first = _without_indices(first)
        names = _names(first), _names(second)
        if not (len(set(names[0])) > 1 and len(set(names[1])) > 1):
            first, second = _without_name(first), _without_name(second)
        if len(first) != len(second):
            return False
        return self._match(first, second, depth)

    def _same_joined(self, target: str, answer: str, depth: int) -> bool:
        """Inequalities of which all must hold."""
        pieces = [_split(text, r"(?i:\\text\{and\})") for text in (target, answer)]
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
        first, second = _relation(target), _relation(answer)
        if first is None and second is None:
            return None
        if first is not None and second is not None:
            if _is_equation(first) and _is_equation(second):
                return self._same_equations(first, second, target, answer, depth)
            if first.operators == second.operators and all(
                map(self._equal, first.parts, second.parts, [depth] * len(first.parts))
            ):
                return True
        if second is not None and first is None and r"\approx" in second.operators:
            return self._equal(target, _exact_side(second), depth)
        said = {"=", r"\in"} if r"\text{mod" in answer else {"=", r"\in", r"\equiv"}
        if second is not None and first is None and set(second.operators) <= said:
            last = second.parts[-1]
            if set(second.operators) == {"="} and _is_name(last) and not _is_name(second.parts[0]):
                last = second.parts[0]
            return self._equal(target, last, depth)
        if first is not None and second is None and set(first.operators) <= {"=", r"\in"}:
            if r"\in" in first.operators and len(first.parts) == 2:
                return self._equal(first.parts[1], answer, depth)
            return _is_name(first.parts[0]) and self._equal(first.parts[-1], answer, depth)
        regions = _region(target), _region(answer)
        if regions[0] and regions[1]:
            if first and second and (_variable(first) != _variable(second)):
                return False
            return self._same_regions(regions[0], regions[1], depth)
        return self._ask(target, answer)

    def _same_equations(self, first: _Relation, second: _Relation, target: str, answer: str, depth: int) -> bool:
        name, other = first.parts[0], second.parts[0]
        if _is_name(name) and (name == other or {_kind(name), _kind(other)} <= {"f(x)", "y"}):
            return self._equal(first.parts[-1], second.parts[-1], depth)
        if _is_name(name) and _is_name(second.parts[-1]) and name == second.parts[-1]:
            return self._equal(first.parts[-1], second.parts[0], depth)
        if len(first.parts) == 2 == len(second.parts) and not _is_name(name):
            both = self._equal(name, other, depth) and self._equal(first.parts[1], second.parts[1], depth)
            if both:
                return True
        if _is_name(name) and _is_name(other) and _constant(first.parts[-1]) and _constant(second.parts[-1]):
            # The same value of something else; AB and BA are one.
            return sorted(name) == sorted(other) and self._equal(first.parts[-1], second.parts[-1], depth)
        return self._ask(target, answer)

    def _as_regions(self, target: str, answer: str, depth: int) -> bool | None:
        """Unions of intervals."""
        if r"\cup" not in target and r"\cup" not in answer:
            return None
        regions = _region(target), _region(answer)
        if regions[0] and regions[1]:
            return self._same_regions(regions[0], regions[1], depth)
        first, second = _split(target, r"\\cup ?"), _split(answer, r"\\cup ?")
        if len(first) == len(second) and self._match(first, second, depth):
            return True
        return self._ask(target, answer)

    def _same_regions(self, first: list[str], second: list[str], depth: int) -> bool:
        if len(first) == len(second) and self._match(first, second, depth):
            return True
        return self._ask(r"\cup ".join(first), r"\cup ".join(second))

    def _as_brackets(self, target: str, answer: str, depth: int) -> bool | None:
        pair = _tuple(target), _tuple(answer)
        if pair[0] is None and pair[1] is None:
            sets = _set(target), _set(answer)
            if sets[0] is not None or sets[1] is not None:
                return self._same_sets(target, answer, sets, depth)
            return None
        if pair[0] is None or pair[1] is None:
            region = _region(target), _region(answer)
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
            return self._as_lists_of(_unique(sets[0]), _unique(sets[1]), depth)
        if sets[0] is not None and len(sets[0]) == 1 and _region(answer) is None:
            return self._equal(sets[0][0], answer, depth)
        if sets[1] is not None and len(sets[1]) == 1 and _region(target) is None:
            return self._equal(target, sets[1][0], depth)
        regions = _region(target), _region(answer)
        if regions[0] and regions[1]:
            return self._same_regions(regions[0], regions[1], depth)
        if has_words(target) or has_words(answer):
            return phrase(target) == phrase(answer)
        return self._ask(target, answer)

    def _as_lists_of(self, first: list[str], second: list[str], depth: int) -> bool:
        return len(first) == len(second) and self._match(first, second, depth)

    def _as_matrices(self, target: str, answer: str, depth: int) -> bool | None:
        first, second = _matrix(target), _matrix(answer)
        if first is None or second is None:
            if r"\begin{" in target or r"\begin{" in answer:
                return phrase(target) == phrase(answer) if has_words(target + answer) else self._ask(target, answer)
            return None
        if [len(row) for row in first] != [len(row) for row in second]:
            return False
        cells = [cell for row in first for cell in row], [cell for row in second for cell in row]
        return all(map(self._equal, *cells, [depth] * len(cells[0])))

    def _as_quantities(self, target: str, answer: str, depth: int) -> bool:
        inner = _without_brackets(target), _without_brackets(answer)
        if inner != (target, answer):
            return self._equal(*inner, depth)
        times = _time(target), _time(answer)
        if times != (None, None):
            return times[0] == times[1]
        ratio = target.split(":"), answer.split(":")
        if len(ratio[0]) > 1 and len(ratio[0]) == len(ratio[1]) and not has_words(target + answer):
            return _same_ratio(*ratio) or all(map(self._equal, *ratio, [depth] * len(ratio[0])))
        first, second = split_unit(target), split_unit(answer)
        if (first.value, second.value) != (target, answer):
            first_value, second_value = _without_brackets(first.value), _without_brackets(second.value)
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


def _readings(text: str) -> Iterator[str]:
    """What a plain answer may mean: the comma in ``4,200`` may separate thousands or two numbers, ``2e3`` be 2000."""
    yield text
    joined = "".join(
        _THOUSANDS.sub(lambda match: match.group().replace(",", ""), part) if k % 2 == 0 or ";" in part else part
        for k, part in enumerate(_mark_brackets(text))
    )
    if joined != text:
        yield joined
    scientific = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    if scientific != text:
        yield scientific


def _without_membership(text: str) -> str:
    r"""The set or interval of ``x\in[1,2]``."""
    return re.sub(rf"^(?:[A-Za-z]|\\[a-z]+ ?)\\in ?(?=[{OPEN}(\[\]])", "", text)


def _open_outwards(text: str) -> str:
    """Intervals whose open ends are written as ``]1,2[``, in round brackets."""
    if not (text.startswith("]") or text.endswith("[") or r"\in]" in text):
        return text
    return re.sub(
        r"([\[\]])([^\[\](),]*),([^\[\](),]*)([\[\]])",
        lambda match: f"{'[(['[match[1] == ']']}{match[2]},{match[3]}{'])'[match[4] == '[']}",
        text,
    )


def _mark_brackets(text: str) -> list[str]:
    """The text in parts: outside brackets, inside, outside, and so on."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "([" + OPEN:
            if depth == 0:
                parts.append(text[start:i])
                start = i
            depth += 1
        elif character in ")]" + CLOSE and depth:
            depth -= 1
            if depth == 0:
                parts.append(text[start : i + 1])
                start = i + 1
    parts.append(text[start:])
    return parts


def _split(text: str, pattern: str | re.Pattern[str]) -> list[str]:
    """Parts of the text between matches that stand in no bracket, brace or environment."""
    pieces, _ = _split_with_marks(text, pattern)
    return pieces


def _split_with_marks(text: str, pattern: str | re.Pattern[str]) -> tuple[list[str], list[str]]:
    compiled = re.compile(pattern)
    pieces, marks, depth, start, i = [], [], 0, 0, 0
    while i < len(text):
        if text.startswith((r"\begin{", r"\lfloor", r"\lceil", r"\langle"), i):
            depth += 1
        elif text.startswith((r"\end{", r"\rfloor", r"\rceil", r"\rangle"), i):
            depth -= 1
        if depth == 0 and (match := compiled.match(text, i)) and match.end() > i:
            pieces.append(text[start:i])
            marks.append(match.group())
            start = i = match.end()
            continue
        if text[i] in _OPENING:
            depth += 1
        elif text[i] in _CLOSING:
            depth = max(0, depth - 1)
        i += 1
    pieces.append(text[start:])
    return pieces, marks


def _items(text: str) -> list[str]:
    r"""Items of a list, ``a \pm b`` as two; one item for what is no list."""
    if re.match(r"[\])\[(]", text) and _tuple(text):
        return [text]
    pieces = [piece.strip() for piece in _split(text, _SEPARATOR)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) > 1 and any(re.fullmatch(r"\\ldots ?", piece) for piece in pieces):
        return [text]  # a list that goes on
    if len(pieces) > 1 and all("=" not in p and not re.search(r"[0-9A-Za-z\\]", p) for p in pieces):
        return [text]
    out: list[str] = []
    for piece in pieces or [text]:
        if _is_set_of(piece) and len(pieces) > 1:
            out.append(piece)
        else:
            out += _both_signs(piece)
    members = _set(text)
    return members if members is not None and len(members) > 1 else out


def _is_set_of(text: str) -> bool:
    return text.startswith(OPEN)


def _both_signs(text: str) -> list[str]:
    if r"\pm" not in text and r"\mp" not in text:
        return [text]
    depth_free = re.sub(r"\\(?:pm|mp) ?", "±", text)
    if depth_free.startswith(("(", "[")) and _tuple(text):
        return [text]
    upper = re.sub(r"\\pm ?", "+", re.sub(r"\\mp ?", "-", text))
    lower = re.sub(r"\\pm ?", "-", re.sub(r"\\mp ?", "+", text))
    return [re.sub(r"^\+|(?<=[=({])\+", "", upper), lower]


def _unique(items: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _tuple(text: str) -> tuple[str, list[str]] | None:
    r"""Brackets and items of ``(1,2)``, ``[1,2)``, ``]1,2[`` or ``\langle 1,2\rangle``, else None."""
    vector = re.fullmatch(r"\\langle ?(.*)\\rangle ?", text, re.DOTALL)
    if vector:
        text = f"({vector.group(1).strip()})"
    if len(text) < 3 or text[0] not in "([]" or text[-1] not in ")][":
        return None
    inside = text[1:-1]
    depth = 0
    for character in inside:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return None
    if depth != 0:
        return None
    items = [item.strip() for item in _split(inside, r"[,;]")]
    if len(items) < 2 or not all(items):
        return None
    brackets = {"]": "(", "(": "(", "[": "["}[text[0]] + {"[": ")", ")": ")", "]": "]"}[text[-1]]
    return brackets, items


def _set(text: str) -> list[str] | None:
    """Members of a set in braces, or None; a set by a condition has none."""
    if not (text.startswith(OPEN) and text.endswith(CLOSE)):
        return None
    inside = text[1:-1]
    if OPEN in inside or CLOSE in inside:
        return None
    if len(_split(inside, r"\||:")) > 1 and not inside.startswith("|"):
        return None
    items = [item.strip() for item in _split(inside, _SEPARATOR)]
    return [sign for item in items if item for sign in _both_signs(item)]


def _matrix(text: str) -> list[list[str]] | None:
    text = re.sub(r"^[(\[](\\begin\{matrix\}.*\\end\{matrix\})[)\]]$", r"\1", text, flags=re.DOTALL)
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin{" in match.group(1):
        return None
    return [[cell.strip() for cell in row.split("&")] for row in match.group(1).split(ROW)]


def _without_brackets(text: str) -> str:
    """The text without brackets around all of it."""
    while len(text) > 2 and text[0] in "([" and text[-1] == {"(": ")", "[": "]"}[text[0]]:
        depth = 0
        for i, character in enumerate(text):
            depth += (character in _OPENING) - (character in _CLOSING)
            if depth == 0 and i < len(text) - 1:
                return text
        text = text[1:-1].strip()
    return text


def _relation(text: str) -> _Relation | None:
    if OPEN in text and text.startswith(OPEN):
        return None
    pieces, marks = _split_with_marks(text, _RELATION)
    if not marks or any(not piece for piece in pieces[1:]):
        return None
    return _Relation(tuple(piece.strip() for piece in pieces), tuple(mark.strip() for mark in marks))


def _is_equation(relation: _Relation) -> bool:
    return set(relation.operators) == {"="}


def _is_inequality(text: str) -> bool:
    relation = _relation(text)
    return relation is not None and bool(set(relation.operators) & {"<", ">", r"\le", r"\ge", r"\ne"})


def _is_name(text: str) -> bool:
    ratio = re.fullmatch(r"\\frac\{([A-Z]{1,3})\}\{([A-Z]{1,3})\}|([^:]+):([^:]+)", text)
    if ratio:
        return all(_is_name(part) for part in ratio.groups() if part)
    return _NAME.fullmatch(text) is not None and not re.fullmatch(r"\\(?:pi|infty) ?|[ei]", text)


def _kind(name: str) -> str:
    return "f(x)" if re.fullmatch(r"[A-Za-z]\([A-Za-z]\)", name) else name


def _constant(text: str) -> bool:
    return not re.search(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+ ?", "", text).replace("e", ""))


def _exact_side(relation: _Relation) -> str:
    """What is said to be about equal to a decimal; the decimal, where the other side is a name."""
    i = relation.operators.index(r"\approx")
    return relation.parts[i] if not _is_name(relation.parts[i]) else relation.parts[i + 1]


def _variable(relation: _Relation) -> str | None:
    names = [part for part in relation.parts if re.fullmatch(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?", part)]
    return names[0].strip() if names else None


def _names(items: Sequence[str]) -> list[str]:
    found = []
    for item in items:
        relation = _relation(item)
        if relation is not None and _is_equation(relation) and _is_name(relation.parts[0]):
            found.append(relation.parts[0])
    return found


def _without_name(items: list[str]) -> list[str]:
    """``x=1`` and ``x=2`` as 1 and 2; ``x=1`` and ``2`` too."""
    if len(set(_names(items))) != 1 or _relation(items[0]) is None:
        return items
    out = []
    for item in items:
        relation = _relation(item)
        out.append(relation.parts[-1] if relation is not None and _is_equation(relation) else item)
    return out


def _without_indices(items: list[str]) -> list[str]:
    """``x_1=1`` and ``x_2=2`` as two values of x."""
    names = _names(items)
    if len(names) == len(items) > 1 and len({re.sub(r"_\{[0-9]\}$", "", name) for name in names}) == 1:
        return [re.sub(r"^([^=]*)_\{[0-9]\}(?==)", r"\1", item) for item in items]
    return items


def _values_by_name(items: list[str]) -> list[str]:
    """Values of ``y=4, x=3`` in the order of their names; other items as they are."""
    names = _names(items)
    if len(names) == len(items) == len(set(names)):
        values = {name: _relation(item).parts[-1] for name, item in zip(names, items, strict=True)}  # type: ignore[union-attr]
        return [values[name] for name in sorted(names)]
    return items


def _value(text: str) -> str:
    """What stands behind the last equals sign, if one does."""
    relation = _relation(text)
    return relation.parts[-1] if relation is not None and _is_equation(relation) else text


def _region(text: str) -> list[str] | None:
    r"""Intervals that an answer describes (``x<1 or x\ge 3``, ``\{x|x>2\}``, ``[3,\infty)``), or None."""
    if text.startswith(OPEN) and text.endswith(CLOSE):
        parts = _split(text[1:-1], r"\||:")
        return _region(parts[-1]) if len(parts) == 2 else None
    text = re.sub(r"^[a-z]\\in ?(?!\\mathbb)", "", text)
    pair = _tuple(text)
    if pair is not None:
        return [f"{pair[0][0]}{_bound(pair[1][0])},{_bound(pair[1][1])}{pair[0][1]}"] if len(pair[1]) == 2 else None
    pieces = _split(text, r"\\cup ?")
    if len(pieces) > 1:
        regions = [_region(piece) for piece in pieces]
        return [r for region in regions if region for r in region] if all(regions) else None
    pieces, marks = _split_with_marks(text, _SEPARATOR)
    pieces = [piece for piece in pieces if piece and not re.fullmatch(r"[a-z]\\in ?\\mathbb\{R\}", piece)]
    if len(pieces) > 1:
        if any(_AND in mark.lower() or r"\land" in mark for mark in marks):
            regions = [_region(piece) for piece in pieces]
            if all(region and len(region) == 1 for region in regions):
                return [r"\cap ".join(region[0] for region in regions if region)]
            return None
        intervals = all(_tuple(piece) for piece in pieces) and all(_OR in mark.lower() for mark in marks)
        regions = [_region(piece) if intervals or _is_inequality(piece) else None for piece in pieces]
        variables = {_variable(relation) for piece in pieces if (relation := _relation(piece)) is not None}
        if all(regions) and len(variables) == (not intervals):
            return [r for region in regions if region for r in region]
        return None
    relation = _relation(pieces[0]) if pieces else None
    return None if relation is None else _intervals(relation)


def _bound(text: str) -> str:
    return r"\infty " if re.fullmatch(r"\+?\\infty ?", text) else text


def _intervals(relation: _Relation) -> list[str] | None:
    parts, operators = list(relation.parts), list(relation.operators)
    if not set(operators) <= set(_FLIPPED) or "=" in operators:
        return None
    variable = _variable(relation)
    if variable is None:
        return None
    at = [part.strip() for part in parts].index(variable)
    others = [part for i, part in enumerate(parts) if i != at]
    if not all(_constant(part) for part in others if part) or not any(others):
        return None
    if len(parts) == 2:
        operator = operators[0] if at == 0 else _FLIPPED[operators[0]]
        bound = others[0]
        if operator == r"\ne":
            return [f"(-\\infty ,{bound})", f"({bound},\\infty )"]
        if operator in ("<", r"\le"):
            return [f"(-\\infty ,{bound}{')' if operator == '<' else ']'}"]
        return [f"{'(' if operator == '>' else '['}{bound},\\infty )"]
    if len(parts) == 3 and at == 1:
        if all(operator in ("<", r"\le") for operator in operators):
            low, high, first, second = parts[0], parts[2], operators[0], operators[1]
        elif all(operator in (">", r"\ge") for operator in operators):
            low, high, first, second = parts[2], parts[0], _FLIPPED[operators[1]], _FLIPPED[operators[0]]
        else:
            return None
        return [f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"]
    return None


def _time(text: str) -> tuple[str, ...] | None:
    r"""Hours, minutes and half of the day of a time of day: ``3:30\text{p.m.}``."""
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(" ", "").replace(".", "").lower()
    match = re.fullmatch(r"0?([0-9]{1,2})(?::([0-9]{2}))?(am|pm)", words)
    return (match.group(1), match.group(2) or "00", match.group(3)) if match else None


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
