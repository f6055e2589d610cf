r"""Reads the forms in which an integer is written as the answer to a question, without computing anything."""

import re
import unicodedata
from functools import lru_cache

from hyperscale.scoring.graders.forms.number_words import BARE_UNITS, effect_of, is_unit_letter

MAX_CHARS = 1_000  # of what stands in a box and is no integer
_MAX_NESTING = 8  # commands within commands: deeper ones are no honest answer

# Dashes that stand for a minus, and characters of full width.
_CHARACTERS = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63"), "-"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\ufe0f"), None),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2009\u202f\u3000"), " "),
    ord("\u3002"): ".",
}
# A negative space, as in 1,\!234, delimiters of mathematics, sizes, and what takes no room.
_NOTHING = re.compile(
    r"\\!|\\?\$|\\[()\[\]]|\\(?:left|right|[bB]igg?[lr]?|middle)(?![A-Za-z])\.?|\\(?:tag|label|phantom|h?space)\*?\{[^{}]*\}"
    r"|\\(?:displaystyle|textstyle|scriptstyle|limits|mathstrut|strut|checkmark|blacksquare|square|qed|tiny|small"
    r"|normalsize|large|Large|LARGE|huge|Huge|bf|bfseries|it|itshape|rm|sf|tt|boldmath|centering|color\{[a-zA-Z]+\})"
    r"(?![A-Za-z])"
)
_SPACE = re.compile(r"\\[,;:> ]|\\(?:thinspace|medspace|thickspace|quad|qquad|enspace)(?![A-Za-z])|~|\\(?=\s|$)")
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?"
_TEXT = r"text(?:bf|it|rm|sf|tt|normal|up|md|sl|sc)?|mbox|hbox|emph|textcolor\{[a-zA-Z]+\}|underline|operatorname\*?"
_FONT = r"math(?:bf|it|rm|sf|tt|normal|cal|bb)|boldsymbol|bm|pmb|ensuremath|num|boxed|fbox|framebox"
_FONT += r"|underbrace|overbrace"
_BRACE = re.compile(r"(\\(?:under|over)brace\s*\{[^{}]*\})\s*[_^]\s*\{(?:[^{}]|\{[^{}]*\})*\}")  # with a remark
_WRAPPER = re.compile(rf"\\({_TEXT}|{_FONT}|(?:[lL]arge|LARGE|[hH]uge|small|color\{{[a-zA-Z]+\}}))\s*\{{([^{{}}]*)\}}")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_LABEL_IN_FONT = re.compile(r"^\s*\\(?:mathbf|mathrm|boldsymbol|bm)\s*\{\s*\(?[A-J][).]\s*\}")
_LABEL_LETTER = re.compile(r"(?<![^\W_])\(?[A-Z][):.]")
# What words become: a unit or a label, and a word that changes the number.
_UNIT, _CHANGE = "\ue000", "\ue001"
# Units that are functions elsewhere: 204\text{ min}.
_MINUTES = re.compile(rf"(?<=[0-9])(\s*)\\(?:{_TEXT}|mathrm)\s*\{{\s*(min|sec)\.?\s*\}}")
_PER_CENT = re.compile(r"per[\s-]+(?:cent|mille?)|parts?\s+per", re.IGNORECASE)
_UNITS_BEHIND = re.compile(rf"(?:\s*(?:[/\u00b7*.]|\\cdot|\\times)?\s*{_UNIT}{_POWER})+\s*$")
_LABEL_BEFORE = re.compile(rf"^(?:\s*{_UNIT}\s*)+[:.]?|^\s*:|^\s*\\(?:therefore|implies|Rightarrow)(?![A-Za-z])")
_ENDING = re.compile(r"(?<![.,;\s])\s*[.,;]\s*$")  # one punctuation mark: three dots are digits that go on
_DEGREES = re.compile(r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degrees?(?![A-Za-z])|\u00b0)\s*(?=$|\ue000)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")  # of angles in degrees
_LOGARITHM = re.compile(r"(\\log\s*_)\s*([0-9])\s+")
_CURRENCY = re.compile(r"^\s*[\u20ac\u00a3\u00a5]|[\u20ac\u00a3\u00a5]\s*$|\\(?:pounds|euro|texteuro)(?![A-Za-z])")
_IN_BRACKETS = re.compile(r"[({]([^(){}]*)[)}]")
_NUMBER = re.compile(r"([+-]?)\s*([0-9]+|[0-9]{1,3}(?:([, ])[0-9]{3})(?:\3[0-9]{3})*)(?:\.0*)?")

# What is no integer, whatever a calculation would make of it: a share, digits that go on, a relation other than
# equality, two numbers, a ratio. Likewise another base, but for that of what it equals (an index: S_{20} = 420), and a
# number over 1 in a line: it is the m/n of an answer m + n.
_REFUSED = re.compile(
    r"%|\u2030|\.\.|\u2026|\\(?:[lcd]?dots[a-z]?|textellipsis|n(?:eq?|ot)|not|[lg](?:eq?|t|eqslant)|approx|sim(?:eq)?|cong|"
    r"equiv|doteq|propto|pm|mp)(?![A-Za-z])|[<>\u2260\u2248\u2261\u2264\u2265\u00b1]|!="
    r"|[0-9]\s+[0-9]|[0-9]\s*:\s*[0-9]"
)
_OTHER_BASE = re.compile(r"[0-9A-Z}]\s*_\s*(?!\{?\s*10\s*(?:\}|$))")
_OVER_ONE = re.compile(r"[+-]?\(?[0-9]+\)?\s*/\s*\(?1\)?")
_EQUALITY = re.compile(r"(?<![<>!~:=])[:=]?=(?!=)")


def canonical_integer(text: str) -> str | None:
    r"""An integer in canonical decimal form, or None if the text is not one.

    Understood: spaces, braces, ``$`` and ``\(...\)``, sizes and fonts, a final period, leading zeros, zeros behind the
    decimal point, signs, thousands separated by comma, thin space or space, currencies and degrees.
    """
    plain = _plain(text)
    return None if _UNIT in plain else _number(plain)


def _number(plain: str) -> str | None:
    """The canonical integer of what `_plain` returned, which may have units and labels (`number_words`)."""
    match = _NUMBER.fullmatch(_bare(plain))
    if match is None:
        return None
    # Compared as text: Python refuses to convert integers of thousands of digits.
    digits = re.sub("[, ]", "", match.group(2)).lstrip("0") or "0"
    return f"-{digits}" if match.group(1) == "-" and digits != "0" else digits


def _bare(plain: str) -> str:
    """What `_plain` returned without labels, units, degrees, and brackets that hold all of it."""
    plain = re.sub(rf"\(\s*{_UNIT}[\s{_UNIT}]*\)", _UNIT, _CURRENCY.sub("", plain))
    text = _ENDING.sub("", _LABEL_BEFORE.sub("", plain).strip())
    for _ in range(2):  # degrees Celsius: a sign and a unit
        text = _UNITS_BEHIND.sub("", text)
        text = text if _TRIGONOMETRIC.search(text) else _DEGREES.sub("", text).strip()
    text = re.sub(r"_\s*(?:\{\s*10\s*\}|10)$", "", _ENDING.sub("", text)).strip()
    while (match := _IN_BRACKETS.fullmatch(text)) is not None:
        text = match.group(1).strip()
    return re.sub(r"^\{\s*([+-])\s*\}", r"\1", text)


def _plain(text: str) -> str:
    """A text without typography, words replaced by marks for what they do to a number."""
    text = "".join(str(unicodedata.decimal(c, c)) for c in text.translate(_CHARACTERS)).replace("{,}", ",")
    text = _LABEL_IN_FONT.sub("", text)
    text = _SPACE.sub(" ", _NOTHING.sub("", _BRACE.sub(r"\1", text)))
    text = _MINUTES.sub(r"\1 \2", text)
    for _ in range(_MAX_NESTING):
        text, count = _WRAPPER.subn(_unwrapped, text)
        if not count:
            break
    return _read_bare_units(_NOTHING.sub("", text)).strip()


def _unwrapped(wrapper: re.Match[str]) -> str:
    """A command's content, its words replaced by marks; a single letter is a variable unless it is a unit."""
    command, content = wrapper.groups()
    upright = command.startswith(("text", "mbox", "hbox", "emph", "operatorname", "mathrm"))
    words = command.startswith(("text", "mbox", "hbox", "emph", "operatorname"))

    def mark(match: re.Match[str]) -> str:
        word = match.group()
        if len(word) == 1:
            return _UNIT if upright and is_unit_letter(word) else word
        effect = effect_of(word)
        return "-" if effect == "sign" else _UNIT if effect == "none" else _CHANGE

    if words or re.fullmatch(rf"[\s{_UNIT}{_CHANGE}]*{_WORD.pattern}(?:[\s/]+{_WORD.pattern})*\s*", content):
        content = _PER_CENT.sub("%", content)
        content = _LABEL_LETTER.sub(_UNIT, content) if words else content
        # A command within this one, as in \text{\(42\)}, is none of its words.
        content = re.sub(rf"\\[A-Za-z]+|{_WORD.pattern}", lambda m: m[0] if m[0][0] == "\\" else mark(m), content)
    return content


def _read_bare_units(text: str) -> str:
    """Units written without a command, ``42 cm``, replaced by marks."""
    return re.sub(rf"(?<=[0-9])\s*{BARE_UNITS.pattern}(?![A-Za-z])", _UNIT, text)


def _last_member(text: str) -> str:
    """What an equation says that something is: its last member; the first if the last only names it (73 = m + n)."""
    depth, level = 0, []
    for character in text:
        depth += (character in "{([") - (character in "})]")
        level.append(depth)
    cuts = [match.span() for match in _EQUALITY.finditer(text) if level[match.start()] <= 0]
    if not cuts:
        return text
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    # Several equations, as in m = 70, n = 3, state no one number.
    if any(text[i] in ",;" and level[i] <= 0 for i in range(starts[-1])):
        return text
    members = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    names_only = re.fullmatch(r"[\sA-Za-z+_{}]*[A-Za-z][\sA-Za-z+_{}]*", _plain(members[-1]))
    return members[0] if names_only else members[-1]


class IntegerAnswer:
    """An answer as it is compared.

    Attributes:
        number: The canonical integer; None if no form explains the answer.
        expression: What is to be computed instead; None if the answer is no integer in any case.
    """

    def __init__(self, text: str) -> None:
        if "mod" not in text:
            text = re.sub(r"\\equiv(?![A-Za-z])|\u2261", "=", text)
        plain = _plain(text)
        self.number = _number(plain)
        self.expression: str | None = None
        if self.number is not None or len(text) > MAX_CHARS:
            return
        if (
            _REFUSED.search(_LOGARITHM.sub(r"\1{\2}", plain))
            or _CHANGE in plain
            or re.search(rf"[0-9]\s*{_UNIT}[\s{_UNIT}]*[0-9]", plain)
        ):
            return
        member = _last_member(_unwrap_all(text))
        plain = _plain(member)
        if _OTHER_BASE.search(_LOGARITHM.sub(r"\1{\2}", plain)):
            return
        self.number = _number(plain)
        if self.number is None and not _OVER_ONE.fullmatch(plain):
            self.expression = _bare(plain)


@lru_cache(maxsize=1 << 14)  # a vote compares each answer with several
def read_answer(text: str) -> IntegerAnswer:
    """An answer, read once."""
    return IntegerAnswer(text)


def _unwrap_all(text: str) -> str:
    r"""The content of fonts and braces that hold the whole text: ``\mathbf{n = 73}``."""
    for _ in range(_MAX_NESTING):
        text = text.strip().strip("$").strip()
        match = re.fullmatch(
            r"(?:\\(?:text(?:bf|it|rm)?|math(?:bf|it|rm|sf)|boldsymbol|bm|boxed))?\s*\{([^{}]*)\}", text
        )
        if match is None:
            break
        text = match.group(1)
    return text
