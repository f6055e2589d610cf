r"""Takes an answer in plain LaTeX apart: items of lists, tuples, sets, matrices, relations, regions, times, names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyperscale.scoring.graders.maths.latex_commands import CLOSE, OPEN, ROW

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
_MATRIX = re.compile(r"\\begin\{p?matrix\}(.*)\\end\{p?matrix\}", re.DOTALL)


@dataclass(frozen=True)
class Relation:
    """Expressions in a chain, ``a < b <= c``, with the operators between them."""

    parts: tuple[str, ...]
    operators: tuple[str, ...]


def list_readings(text: str) -> Iterator[str]:
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


def drop_membership(text: str) -> str:
    r"""The set or interval of ``x\in[1,2]``."""
    return re.sub(rf"^(?:[A-Za-z]|\\[a-z]+ ?)\\in ?(?=[{OPEN}(\[\]])", "", text)


def open_outwards(text: str) -> str:
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


def split_outside_brackets(text: str, pattern: str | re.Pattern[str]) -> list[str]:
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


def read_items(text: str) -> list[str]:
    r"""Items of a list, ``a \pm b`` as two; one item for what is no list."""
    if re.match(r"[\])\[(]", text) and read_tuple(text):
        return [text]
    pieces = [piece.strip() for piece in split_outside_brackets(text, _SEPARATOR)]
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
    members = read_set(text)
    return members if members is not None and len(members) > 1 else out


def _is_set_of(text: str) -> bool:
    return text.startswith(OPEN)


def _both_signs(text: str) -> list[str]:
    if r"\pm" not in text and r"\mp" not in text:
        return [text]
    depth_free = re.sub(r"\\(?:pm|mp) ?", "±", text)
    if depth_free.startswith(("(", "[")) and read_tuple(text):
        return [text]
    upper = re.sub(r"\\pm ?", "+", re.sub(r"\\mp ?", "-", text))
    lower = re.sub(r"\\pm ?", "-", re.sub(r"\\mp ?", "+", text))
    return [re.sub(r"^\+|(?<=[=({])\+", "", upper), lower]


def drop_repeated(items: Sequence[str]) -> list[str]:
    """Each item once, in order."""
    return list(dict.fromkeys(items))


def read_tuple(text: str) -> tuple[str, list[str]] | None:
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
    items = [item.strip() for item in split_outside_brackets(inside, r"[,;]")]
    if len(items) < 2 or not all(items):
        return None
    brackets = {"]": "(", "(": "(", "[": "["}[text[0]] + {"[": ")", ")": ")", "]": "]"}[text[-1]]
    return brackets, items


def read_set(text: str) -> list[str] | None:
    """Members of a set in braces, or None; a set by a condition has none."""
    if not (text.startswith(OPEN) and text.endswith(CLOSE)):
        return None
    inside = text[1:-1]
    if OPEN in inside or CLOSE in inside:
        return None
    if len(split_outside_brackets(inside, r"\||:")) > 1 and not inside.startswith("|"):
        return None
    items = [item.strip() for item in split_outside_brackets(inside, _SEPARATOR)]
    return drop_repeated([sign for item in items if item for sign in _both_signs(item)])


def read_matrix(text: str) -> list[list[str]] | None:
    """The rows of a matrix; None if it is none."""
    text = re.sub(r"^[(\[](\\begin\{matrix\}.*\\end\{matrix\})[)\]]$", r"\1", text, flags=re.DOTALL)
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin{" in match.group(1):
        return None
    return [[cell.strip() for cell in row.split("&")] for row in match.group(1).split(ROW)]


def drop_brackets(text: str) -> str:
    """The text without brackets around all of it."""
    while len(text) > 2 and text[0] in "([" and text[-1] == {"(": ")", "[": "]"}[text[0]]:
        depth = 0
        for i, character in enumerate(text):
            depth += (character in _OPENING) - (character in _CLOSING)
            if depth == 0 and i < len(text) - 1:
                return text
        text = text[1:-1].strip()
    return text


def read_relation(text: str) -> Relation | None:
    """The relation that a text is; None if it is none."""
    if OPEN in text and text.startswith(OPEN):
        return None
    pieces, marks = _split_with_marks(text, _RELATION)
    if not marks or any(not piece for piece in pieces[1:]):
        return None
    return Relation(tuple(piece.strip() for piece in pieces), tuple(mark.strip() for mark in marks))


def is_equation(relation: Relation) -> bool:
    """Whether all operators are equal signs."""
    return set(relation.operators) == {"="}


def is_inequality(text: str) -> bool:
    """Whether a text is a relation with an inequality in it."""
    relation = read_relation(text)
    return relation is not None and bool(set(relation.operators) & {"<", ">", r"\le", r"\ge", r"\ne"})


def is_name(text: str) -> bool:
    """Whether a text names a value: a variable, a function of one, an angle, words."""
    ratio = re.fullmatch(r"\\frac\{([A-Z]{1,3})\}\{([A-Z]{1,3})\}|([^:]+):([^:]+)", text)
    if ratio:
        return all(is_name(part) for part in ratio.groups() if part)
    return _NAME.fullmatch(text) is not None and not re.fullmatch(r"\\(?:pi|infty) ?|[ei]", text)


def kind_of_name(name: str) -> str:
    """The name, and one for all functions of a variable."""
    return "f(x)" if re.fullmatch(r"[A-Za-z]\([A-Za-z]\)", name) else name


def is_constant(text: str) -> bool:
    """Whether no letter stands in a text but e."""
    return not re.search(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+ ?", "", text).replace("e", ""))


def exact_side(relation: Relation) -> str:
    """What is said to be about equal to a decimal; the decimal, where the other side is a name."""
    i = relation.operators.index(r"\approx")
    return relation.parts[i] if not is_name(relation.parts[i]) else relation.parts[i + 1]


def find_variable(relation: Relation) -> str | None:
    """The variable of a relation: its first part that is a letter."""
    names = [part for part in relation.parts if re.fullmatch(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?", part)]
    return names[0].strip() if names else None


def read_names(items: Sequence[str]) -> list[str]:
    """The names of items of the form ``name = value``."""
    found = []
    for item in items:
        relation = read_relation(item)
        if relation is not None and is_equation(relation) and is_name(relation.parts[0]):
            found.append(relation.parts[0])
    return found


def drop_shared_name(items: list[str]) -> list[str]:
    """``x=1`` and ``x=2`` as 1 and 2; ``x=1`` and ``2`` too."""
    if len(set(read_names(items))) != 1 or read_relation(items[0]) is None:
        return items
    out = []
    for item in items:
        relation = read_relation(item)
        out.append(relation.parts[-1] if relation is not None and is_equation(relation) else item)
    return out


def drop_indices(items: list[str]) -> list[str]:
    """``x_1=1`` and ``x_2=2`` as two values of x."""
    names = read_names(items)
    if len(names) == len(items) > 1 and len({re.sub(r"_\{[0-9]\}$", "", name) for name in names}) == 1:
        return [re.sub(r"^([^=]*)_\{[0-9]\}(?==)", r"\1", item) for item in items]
    return items


def values_by_name(items: list[str]) -> list[str]:
    """Values of ``y=4, x=3`` in the order of their names; other items as they are."""
    names = read_names(items)
    if len(names) == len(items) == len(set(names)):
        values = {name: read_relation(item).parts[-1] for name, item in zip(names, items, strict=True)}  # type: ignore[union-attr]
        return [values[name] for name in sorted(names)]
    return items


def value_of(text: str) -> str:
    """What stands behind the last equals sign, if one does."""
    relation = read_relation(text)
    return relation.parts[-1] if relation is not None and is_equation(relation) else text


def read_region(text: str) -> list[str] | None:
    r"""Intervals that an answer describes (``x<1 or x\ge 3``, ``\{x|x>2\}``, ``[3,\infty)``), or None."""
    if text.startswith(OPEN) and text.endswith(CLOSE):
        parts = split_outside_brackets(text[1:-1], r"\||:")
        return read_region(parts[-1]) if len(parts) == 2 else None
    text = re.sub(r"^[a-z]\\in ?(?!\\mathbb)", "", text)
    pair = read_tuple(text)
    if pair is not None:
        return [f"{pair[0][0]}{_bound(pair[1][0])},{_bound(pair[1][1])}{pair[0][1]}"] if len(pair[1]) == 2 else None
    pieces = split_outside_brackets(text, r"\\cup ?")
    if len(pieces) > 1:
        regions = [read_region(piece) for piece in pieces]
        return [r for region in regions if region for r in region] if all(regions) else None
    pieces, marks = _split_with_marks(text, _SEPARATOR)
    pieces = [piece for piece in pieces if piece and not re.fullmatch(r"[a-z]\\in ?\\mathbb\{R\}", piece)]
    if len(pieces) > 1:
        if any(_AND in mark.lower() or r"\land" in mark for mark in marks):
            regions = [read_region(piece) for piece in pieces]
            if all(region and len(region) == 1 for region in regions):
                return [r"\cap ".join(region[0] for region in regions if region)]
            return None
        intervals = all(read_tuple(piece) for piece in pieces) and all(_OR in mark.lower() for mark in marks)
        regions = [read_region(piece) if intervals or is_inequality(piece) else None for piece in pieces]
        variables = {find_variable(relation) for piece in pieces if (relation := read_relation(piece)) is not None}
        if all(regions) and len(variables) == (not intervals):
            return [r for region in regions if region for r in region]
        return None
    relation = read_relation(pieces[0]) if pieces else None
    return None if relation is None else _intervals(relation)


def _bound(text: str) -> str:
    return r"\infty " if re.fullmatch(r"\+?\\infty ?", text) else text


def _intervals(relation: Relation) -> list[str] | None:
    parts, operators = list(relation.parts), list(relation.operators)
    if not set(operators) <= set(_FLIPPED) or "=" in operators:
        return None
    variable = find_variable(relation)
    if variable is None:
        return None
    at = [part.strip() for part in parts].index(variable)
    others = [part for i, part in enumerate(parts) if i != at]
    if not all(is_constant(part) for part in others if part) or not any(others):
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


def read_time(text: str) -> tuple[str, ...] | None:
    r"""Hours, minutes and half of the day of a time of day: ``3:30\text{p.m.}``."""
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(" ", "").replace(".", "").lower()
    match = re.fullmatch(r"0?([0-9]{1,2})(?::([0-9]{2}))?(am|pm)", words)
    return (match.group(1), match.group(2) or "00", match.group(3)) if match else None
