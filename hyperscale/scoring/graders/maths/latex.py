r"""Writes an answer in plain LaTeX: what only looks different becomes the same text.

Plain LaTeX, as the other parts of the maths grader read it:

- No styles, sizes, fonts of letters and digits, delimiters of mathematics, or braces that are no argument. Every
  argument has its braces: ``\frac12`` is ``\frac{1}{2}``, ``x^2`` is ``x^{2}``.
- Words stand in ``\text{...}``; digits, signs and single letters never do. Letters stay, whatever their font.
- No spaces, except between two numbers, inside words, and where a space ends a command.
- Single signs stand for what LaTeX writes with several: ``%``, ``°``, `OPEN` and `CLOSE` for the braces of a set,
  `ROW` for the end of a matrix row.
"""

import re
from collections.abc import Sequence
from typing import TypeAlias

from hyperscale.scoring.graders.maths.latex_commands import (
    ACCENTS,
    ALIGNED,
    BARE_COMMANDS,
    BINOMIALS,
    BRACKET_SIZES,
    CLOSE,
    DECLARATIONS,
    DROPPED_ARGUMENT,
    FRACTIONS,
    FUNCTIONS,
    IGNORED,
    LETTER_FONTS,
    MATRICES,
    NAMED_BASES,
    OPEN,
    PLAIN_WORDS,
    PROSE,
    ROW,
    SAME,
    SIGNS,
    SPACES,
    VARIABLES,
    WITH_ARGUMENT,
    WORD_FONTS,
)
from hyperscale.scoring.graders.maths.unicode_signs import write_as_latex

_Node: TypeAlias = "str | list[_Node]"

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|[^\\\s]|\\", re.DOTALL)
_ROW = re.compile(r"\\\\\*?[ \t]*(?:\[\s*-?[0-9.]+\s*(?:pt|em|ex|mm|cm|in|mu|bp|pc|\\baselineskip)\s*\])?")
_AND_OR = re.compile(r"(?<![A-Za-z])(and|or)(?![A-Za-z])", re.IGNORECASE)
_DATE = re.compile(r"(\\text\{[A-Z][a-z]{2,8}\.?\}[0-9]{1,2}),(?=[0-9]{4}(?![0-9]))")
_REWRITTEN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_DATE.pattern, r"\1 "),
        (OPEN + CLOSE, r"\\emptyset"),
        (rf"(\\(?:max|min|gcd)){OPEN}([^{OPEN}{CLOSE}]*){CLOSE}", r"\1(\2)"),
        (r"\\frac\{(\\text\{[^{}]*\})\}\{(\\text\{[^{}]*\})\}", r"\1/\2"),  # km over h
        (r"(?<=[0-9])\\text\{([kc]m|mi|ft)\}/(hr?|s)$", r"\\text{\1}/\\text{\2}"),  # 42 km/h without a command
        (r"(?<=[0-9}])[(\[](\\text\{[^{}]*\}(?:\^\{[0-9]\})?)[)\]]$", r"\1"),  # a unit in brackets
        (r"(?<=[0-9)}])\\(min|sec) ?(?=$|[,;\])])", r"\\text{\1}"),  # minutes and seconds, no functions
        (r"\(\\text\{mod\}([^()]*)\)", r"\\text{mod}\1"),
        (r"^([0-9]+)\\text\{to\}([0-9]+)$", r"\1:\2"),
        (r"(?<![0-9A-Z])([0-9A-Z]+)\(?\\text\{(?:in )?base\}([0-9]{1,2})\)?$", r"\1_{\2}"),
        (r"(?<![0-9.])([0-9]+)°([0-9.]+)'", r"(\1+\\frac{\2}{60})°"),  # minutes of an angle
        (r"(?<=[0-9])\^\{th\}|(?<=1)\^\{st\}|(?<=3)\^\{rd\}", ""),
    )
)
_CIS = re.compile(
    r"(?:\\(?:text|operatorname)\{cis\}|\\?(?<![A-Za-z])cis(?![A-Za-z])) ?(?:\((?P<bracket>[^()]*)\)°?"
    r"|(?P<angle>-?(?:\\frac\{[^{}]*\}\{[^{}]*\}|\\(?:pi|theta|alpha|phi)(?![a-z]) ?|[0-9.]+|[a-z]|/)+°?))"
)
_TEXT_PART = re.compile(r"[A-Za-z][A-Za-z'’\-.]*(?:[ ]+[A-Za-z][A-Za-z'’\-.]*)*|[^A-Za-z]+")


class UnbalancedError(ValueError):
    """Braces do not match."""


def write_plain(text: str) -> str:
    """The answer in plain LaTeX (see the module); text whose braces do not match comes back as it is."""
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\$", r"\1", write_as_latex(text).strip())
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z{}%$])", r"\\", text)  # every backslash doubled, as in a string of a program
    text = re.sub(r"(?<=[^\s,(])\s*\\(?:square|blacksquare|Box|checkmark|qed|qedsymbol)\s*$", "", text)
    text = _ROW.sub(ROW, text)
    text = _join_marked_thousands(text)
    text = re.sub(r"<=|=<", r"\\le ", text)
    text = re.sub(r">=", r"\\ge ", text)
    text = re.sub(r"!=(?!=)", r"\\ne ", text)
    text = text.replace("**", "^").replace("+-", r"\pm ").replace("+/-", r"\pm ").replace("==", "=")
    text = re.sub(r"\.\.\.+", r"\\ldots ", text)
    try:
        text = _write(_parse(_TOKEN.findall(text))).strip().strip(ROW)
    except UnbalancedError:
        return text.strip()
    return _drop_spaces(text)


def write_readable(text: str) -> str:
    """Plain LaTeX with LaTeX's own commands in place of its single signs; `write_plain` gives the same back."""
    text = text.replace(OPEN, r"\{").replace(CLOSE, r"\}").replace(ROW, r"\\")
    return re.sub(r"(?<!\\)%", r"\\%", text).replace("°", r"^\circ ").strip()


def _join_marked_thousands(text: str) -> str:
    r"""``1{,}234`` and ``1,\!234`` say that the comma is no separator of a list."""
    text = re.sub(r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!|\\!\s*,)\s*(?:\\!)*\s*(?=[0-9]{3}(?![0-9]))", "", text)
    # A comma and a space separate items, whatever follows.
    if re.search(r"[0-9],\s*[0-9]{3}(?![0-9])", text):
        text = re.sub(r",(?:\s|\\[ ,;:]|~)+", ";", text)
    return re.sub(r"(?<![0-9.])([0-9]{1,3})((?:(?:\\,|\\ |~|\\:|\\;| )[0-9]{3})+)(?![0-9]|\s*[0-9])", _join, text)


def _join(match: re.Match[str]) -> str:
    return match.group(1) + re.sub("[^0-9]", "", match.group(2))


def _parse(tokens: Sequence[str]) -> list[_Node]:
    """Groups in braces as nested lists; explicit stack, so that no depth of nesting is too much."""
    stack: list[list[_Node]] = [[]]
    for token in tokens:
        if token == "{":
            stack.append([])
            if len(stack) > 60:
                raise UnbalancedError
        elif token == "}":
            if len(stack) == 1:
                raise UnbalancedError
            group = stack.pop()
            stack[-1].append(group)
        else:
            stack[-1].append(token)
    if len(stack) != 1:
        raise UnbalancedError
    return stack[0]


def _write(nodes: list[_Node]) -> str:
    for command, template in ((r"\over", r"\frac{%s}{%s}"), (r"\choose", r"\binom{%s}{%s}")):
        if command in nodes:
            i = nodes.index(command)
            return template % (_write(nodes[:i]), _write(nodes[i + 1 :]))
    out: list[str] = []
    i = 0
    while i < len(nodes):
        piece, i = _write_one(nodes, i)
        out.append(piece)
    return "".join(out)


def _skip_spaces(nodes: list[_Node], i: int) -> int:
    while i < len(nodes) and isinstance(node := nodes[i], str) and (node.isspace() or node in SPACES):
        i += 1
    return i


def _argument(nodes: list[_Node], i: int) -> tuple[list[_Node], int]:
    """The nodes of one argument from node i on, and the place behind it."""
    i = _skip_spaces(nodes, i)
    if i >= len(nodes):
        raise UnbalancedError
    node = nodes[i]
    if isinstance(node, list) or node.isalpha():
        return node if isinstance(node, list) else [node], i + 1
    _, after = _write_one(nodes, i)
    return nodes[i:after], after


def _script(nodes: list[_Node], i: int) -> tuple[str, int]:
    """What is raised or lowered: a group, a bracket, or a number with its sign, though LaTeX takes one digit only."""
    i = _skip_spaces(nodes, i)
    start = i
    if i < len(nodes) and nodes[i] == "(":
        depth = 0
        for j in range(i, len(nodes)):
            depth += {"(": 1, ")": -1}.get(nodes[j], 0) if isinstance(nodes[j], str) else 0  # type: ignore[arg-type]
            if depth == 0:
                return _write(nodes[i + 1 : j]), j + 1
    if i < len(nodes) and nodes[i] in ("-", "+"):
        i = _skip_spaces(nodes, i + 1)
    j = i
    while j < len(nodes) and isinstance(nodes[j], str) and nodes[j].isdigit():  # type: ignore[union-attr]
        j += 1
    if j > i:
        return "".join(str(node) for node in nodes[start:j] if str(node).strip()), j
    sign = str(nodes[start]) if i > start else ""
    content, after = _argument(nodes, i)
    return sign + _write(content), after


def _option(nodes: list[_Node], i: int) -> tuple[str | None, int]:
    """What stands in square brackets from node i on, or None."""
    j = _skip_spaces(nodes, i)
    if j < len(nodes) and nodes[j] == "[" and "]" in nodes[j:]:
        end = nodes.index("]", j)
        return _write(nodes[j + 1 : end]), end + 1
    return None, i


def _plain_letters(nodes: list[_Node]) -> str:
    return "".join(_plain_letters(node) if isinstance(node, list) else node for node in nodes)


def _write_one(nodes: list[_Node], i: int) -> tuple[str, int]:
    """One node with its arguments in plain LaTeX, and the place behind them."""
    node = nodes[i]
    if isinstance(node, list):
        return _write(node), i + 1
    if node.isspace() or node in SPACES:
        return " ", i + 1
    if node.isalpha():
        return _write_letters(nodes, i)
    if node in IGNORED:
        if node in BRACKET_SIZES and nodes[i + 1 : i + 2] == ["."]:
            return "", i + 2
        if node in BRACKET_SIZES and nodes[i + 1 : i + 2] in (["<"], [">"]):
            return {"<": r"\langle ", ">": r"\rangle "}[str(nodes[i + 1])], i + 2
        return "", i + 1
    if node in ("^", "_"):
        content, after = _script(nodes, i + 1)
        if node == "^" and content.strip() in (r"\circ", "°"):
            return "°", after
        if node == "^" and re.fullmatch(r"\\text\{(?:th|st|nd|rd)\}", content.strip()):
            return "", after
        if node == "_" and content.strip() in NAMED_BASES:
            content = NAMED_BASES[content.strip()]
        if node == "^" and content.strip("'") == "" and content:
            return content, after
        return f"{node}{{{content.strip()}}}", after
    if node in SIGNS:
        return SIGNS[node], i + 1
    if node in FRACTIONS or node in BINOMIALS:
        first, after = _argument(nodes, i + 1)
        second, after = _argument(nodes, after)
        name = r"\frac" if node in FRACTIONS else r"\binom"
        return f"{name}{{{_write(first).strip()}}}{{{_write(second).strip()}}}", after
    if node == r"\sqrt":
        degree, after = _option(nodes, i + 1)
        radicand, after = _argument(nodes, after)
        option = "" if degree is None or degree.strip() == "2" else f"[{degree.strip()}]"
        return f"\\sqrt{option}{{{_write(radicand).strip()}}}", after
    if node in DECLARATIONS:
        return _write_words(nodes[_skip_spaces(nodes, i + 1) :]), len(nodes)
    if node in WITH_ARGUMENT:
        argument, after = _argument(nodes, i + 1)
        return _write_with_argument(node, argument), after
    if node in (r"\color", r"\textcolor", r"\colorbox"):
        _, after = _option(nodes, i + 1)
        _, after = _argument(nodes, after)
        return "", after
    if node in (r"\mod", r"\bmod"):
        return r"\text{mod}", i + 1
    if node == r"\begin":
        return _write_environment(nodes, i)
    if node.startswith("\\") and len(node) > 1 and node[1].isalpha():
        return f"\\{SAME.get(node[1:], node[1:])} ", i + 1
    return node, i + 1


def _write_with_argument(command: str, argument: list[_Node]) -> str:
    """A command of one argument: most only say how it looks."""
    if command in WORD_FONTS:
        return _write_words(argument)
    if command in LETTER_FONTS:
        return _write_bold(argument)
    if command in DROPPED_ARGUMENT:
        return " "
    content = _write(argument).strip()
    if command in ACCENTS:
        return f"{ACCENTS[command]}{{{content}}}"
    return rf"\text{{mod}}{content}" if command == r"\pmod" else content


def _write_letters(nodes: list[_Node], i: int) -> tuple[str, int]:
    """A run of bare letters: a known word, or variables side by side."""
    j = i
    while j < len(nodes) and isinstance(nodes[j], str) and nodes[j].isalpha() and nodes[j].isascii():  # type: ignore[union-attr]
        j += 1
    if j == i:
        return str(nodes[i]), i + 1
    run = "".join(str(node) for node in nodes[i:j])
    if run == "sqrt":
        content, after = _script(nodes, j)
        return f"\\sqrt{{{content}}}", after
    if run in PLAIN_WORDS:
        return PLAIN_WORDS[run], j
    if run in BARE_COMMANDS:
        return f"\\{run} ", j
    behind = "".join(str(node) for node in nodes[max(0, i - 2) : i] if isinstance(node, str)).strip()[-1:]
    if (len(run) > 1 and run.lower() in PROSE) or (run == "in" and behind.isdigit()):
        return f"\\text{{{run}}}", j
    return run, j


def _write_bold(content: list[_Node]) -> str:
    """Letters in a font of mathematics are letters; only long words in it are words."""
    letters = _plain_letters(content)
    if re.fullmatch(r"[A-Za-z]{3,}(?:[\s~]+[A-Za-z]+)*[.]?", letters) or re.search(r"[A-Za-z]{2,}\s+[A-Za-z]", letters):
        return _write_words(content)
    return _write(content)


def _write_words(content: list[_Node]) -> str:
    """Text: its words stay text; numbers, signs and letters that name no unit are mathematics."""
    out, run, i = [], "", 0
    while i < len(content):
        node = content[i]
        if isinstance(node, str) and node in ("^", "_") and i + 1 < len(content):
            out.append(_write_prose(run))
            piece, i = _write_one(content, i)
            out.append(piece)
            run = ""
            continue
        if isinstance(node, list) or (node.startswith("\\") and node not in SPACES | IGNORED and node not in SIGNS):
            out.append(_write_prose(run))
            run = ""
            piece, i = (_write_words(node), i + 1) if isinstance(node, list) else _write_one(content, i)
            out.append(piece)
            continue
        if node in SPACES or node.isspace():
            run += " "
        elif SIGNS.get(node, "").startswith("\\") and node != "*":
            out += [_write_prose(run), SIGNS[node]]
            run = ""
        elif node not in IGNORED:
            run += node if node == "*" else SIGNS.get(node, node)
        i += 1
    out.append(_write_prose(run))
    return "".join(out)


def _write_prose(text: str) -> str:
    """A run of characters in text."""
    if text.strip() in ("tg", "ctg", "arctg", "cosec"):
        return f"\\{SAME[text.strip()]} "
    if text.strip() in BARE_COMMANDS:
        return f"\\{text.strip()} "
    if text.strip() in FUNCTIONS:
        return f"\\operatorname{{{text.strip()}}}"
    if text.strip() in VARIABLES:
        return text.strip()
    if text.strip() in ("pi", "infinity", "inf"):
        return PLAIN_WORDS[text.strip()]
    out = []
    for part in _TEXT_PART.findall(text):
        if part[0].isalpha():
            for words in _AND_OR.split(part):
                word = words.strip()
                out.append(word if word in VARIABLES or not word else f"\\text{{{word}}}")
        else:
            out.append(part)
    return "".join(out)


def _write_environment(nodes: list[_Node], i: int) -> tuple[str, int]:
    name_nodes, start = _argument(nodes, i + 1)
    name = _plain_letters(name_nodes)
    if name.removesuffix("*") in MATRICES:
        name = name.removesuffix("*")
        _, start = _option(nodes, start)  # how columns are aligned
    depth, j = 1, start
    while j < len(nodes):
        if nodes[j] == r"\begin":
            depth += 1
        elif nodes[j] == r"\end":
            depth -= 1
            if depth == 0:
                break
        j += 1
    if j >= len(nodes):
        raise UnbalancedError
    body = nodes[start:j]
    _, after = _argument(nodes, j + 1)
    columns = _skip_spaces(body, 0)
    if name == "array" and columns < len(body) and isinstance(body[columns], list):
        body = body[columns + 1 :]
    inside = _drop_spaces(_write(body)).strip(ROW)
    if name in MATRICES:
        name = "matrix" if name in ("array", "smallmatrix", "matrix") else "pmatrix"
        return f"\\begin{{{name}}}{inside}\\end{{{name}}}", after
    if name in ALIGNED or (name == "cases" and "&" not in inside):
        return inside.replace("&", "").replace(ROW, ","), after
    return f"\\begin{{{name}}}{inside}\\end{{{name}}}", after


def _drop_spaces(text: str) -> str:
    """Without spaces, except in words, between numbers, and where one ends a command."""
    parts = re.split(r"(\\text\{[^{}]*\})", text)
    for k in range(0, len(parts), 2):
        part = re.sub(r"\s+", " ", parts[k])
        part = re.sub(r"(?<=[0-9.]) (?=[0-9.])", "\0", part)
        part = re.sub(r"(\\[A-Za-z]+) +(?=[A-Za-z])", "\\1\1", part)
        parts[k] = part.replace(" ", "").replace("\0", " ").replace("\1", " ")
    text = "".join(parts).strip()
    text = re.sub(r"(?<![0-9./ ])([0-9]+) ([0-9]+)/([0-9]+)(?![0-9/])", r"\1\\frac{\2}{\3}", text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    text = _CIS.sub(_write_cis, text)
    text = re.sub(r"(?<=[^0-9])\.$|(?<=[0-9])\.$", "", text)
    return text.strip(",;").strip()


def _write_cis(match: re.Match[str]) -> str:
    """``cis x`` is cos x + i sin x."""
    angle = match["bracket"] or match["angle"]
    return rf"e^{{i\cdot({angle.removesuffix('°').strip()})" + (r"\cdot\frac{\pi}{180}}" if "°" in match[0] else "}")
