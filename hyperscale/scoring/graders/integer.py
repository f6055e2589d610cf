r"""Grades integers in ``\boxed{}``, as in AIME."""

import re
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.boxes import last_box

MAX_CHARS = 1_000  # of what stands in a box and is no integer
_FONT = r"(?:bf|it|rm|sf|tt|normal)"
_WRAPPER = re.compile(
    rf"\\(?:boxed|text{_FONT}?|math{_FONT}|boldsymbol|bm|mbox|hbox)\s*\{{([^{{}}]*)\}}(\s*\^\s*(?:\{{[0-9]\}}|[0-9]))?"
)
# A negative space, as in 1,\!234, delimiters of mathematics, and what takes no room.
_NOTHING = re.compile(r"\\!|\\?\$|\\[()\[\]]|\\displaystyle\b|[\u200b\u2060\ufeff]")
_SPACE = re.compile(r"\\[,;: ]|~|\\q?quad\b|[\u00a0\u2009\u202f]")
_DEGREES = re.compile(r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\u00b0)$")
_SEPARATED = re.compile(r"[0-9]{1,3}(?:([, ])[0-9]{3})(?:\1[0-9]{3})*")
_INTEGER = re.compile(r"([+-]?)([0-9]+)")


def canonical_integer(text: str) -> str | None:
    r"""An integer in canonical decimal form, or None if the text is not one.

    Understood: outer spaces, braces, ``$`` and ``\(...\)``, a final period, leading zeros, signs, thousands separated
    by comma, thin space or space, ``\text{...}`` and its kin around the number or, without digits in it, beside it (a
    unit, perhaps squared), and degrees.
    """
    text = _NOTHING.sub("", text.replace("\u2212", "-")).replace("{,}", ",")
    for _ in range(4):  # nesting deeper than this is no honest answer
        text, count = _WRAPPER.subn(_unwrapped, text)
        if not count:
            break
    text = _SPACE.sub(" ", text).strip().removesuffix(".").rstrip()
    text = _DEGREES.sub("", text).rstrip()
    while text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    sign, digits = (text[0], text[1:].lstrip()) if text[:1] in ("+", "-") else ("", text)
    if _SEPARATED.fullmatch(digits):
        digits = re.sub("[, ]", "", digits)
    match = _INTEGER.fullmatch(sign + digits)
    if match is None:
        return None
    # Compared as text: Python refuses to convert integers of thousands of digits.
    digits = match.group(2).lstrip("0") or "0"
    return f"-{digits}" if match.group(1) == "-" and digits != "0" else digits


def _unwrapped(wrapper: re.Match[str]) -> str:
    """A font's or text's content if it holds digits, with the power it is raised to; else it is a label or a unit."""
    content, power = wrapper.group(1), wrapper.group(2) or ""
    return content + power if re.search("[0-9]", content) else " "


class IntegerGrader(Grader):
    r"""The last balanced ``\boxed{}`` after the thinking; anything that is not an integer is wrong, not an error."""

    name = "integer"

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        r"""The canonical integer of the last balanced box, or the box's text if that is no integer."""
        answer = after_thinking(text)
        content = None if answer is None else last_box(answer, finished=finished)
        if content is None or not content.strip():
            return None
        number = canonical_integer(content)
        if number is None:  # it is voted on and stored, so it must not be long
            return content.strip() if len(content) <= MAX_CHARS else f"{content.strip()[:MAX_CHARS]}…"
        return number

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the answer is the target integer (an int or its text)."""
        number = canonical_integer(answer)
        return number is not None and number == canonical_integer(str(target))
