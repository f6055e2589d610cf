r"""Finds the box a text states its answer in: ``\boxed{...}``, ``\fbox{...}`` and their kin."""

import re
from typing import NamedTuple

# Two backslashes are one that was escaped once too often. MathJax's \bbox has options in brackets.
_COMMAND = r"\\{1,2}(?:boxed|fbox|framebox|bbox)(?![A-Za-z])\s*(?:\[[^\[\]{}\n]{0,80}\]\s*)?"
_TOKEN = re.compile(rf"(?P<box>{_COMMAND}\{{)|(?P<bare>{_COMMAND})(?!\{{)|\\.|[{{}}]", re.DOTALL)
# What may stand without braces behind the command: a number, a letter, or a command with its arguments.
_BARE = re.compile(
    r"\$?\(?(?:[+\u2212-]?\s*[0-9](?:[0-9.,]*[0-9])?(?![A-Za-z0-9^_{\\]|[.,][0-9])|[A-Za-z](?! ?[A-Za-z])"
    r"|[+\u2212-]?\\[A-Za-z]+(?:\s*\{[^{}]{0,200}\}){1,2})\)?"
)
_MAX_UNCLOSED = 500  # characters of a box that is never closed, in a finished text
_SHORT, _FEW_WORDS = 40, 6  # characters and words of one in a text that may have been cut off
# What may stand behind the content of a box that is never closed: emphasis, marks of the end.
_BEHIND = re.compile(r"(?:\s|\*\*|</s>|<\|[^|<>]{1,30}\|>)+$")


class Box(NamedTuple):
    """A box: its content, and where that starts in the text."""

    content: str
    start: int


def last_box(text: str, *, finished: bool | None = False) -> str | None:
    """Content of the box that ends last, or None; arguments as of `find_last_box`."""
    found = find_last_box(text, finished=finished)
    return None if found is None else found.content


def find_last_box(text: str, *, finished: bool | None = False) -> Box | None:
    r"""The box that ends last, or None. One pass, whatever the nesting.

    A box without braces counts (``\boxed 73``), and so, at the end of a finished text, does one that is never closed.

    Args:
        text: Any text.
        finished: Whether the model ended the text itself; a text that was cut off may end inside a box. None if that is
            not known: then a box that is never closed counts where there is no other.
    """
    # Of each open brace: where a box's content starts, or None if it is no box's.
    starts: list[int | None] = []
    last: Box | None = None
    end = -1  # where the last box ends
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "box":
            starts.append(match.end())
        elif match.lastgroup == "bare":
            bare = _BARE.match(text, match.end())
            # A cut-off text may end inside a number.
            if bare is not None and (finished is not False or bare.end() < len(text)):
                last, end = Box(bare.group(), bare.start()), bare.end()
        elif token == "{":
            starts.append(None)
        elif token == "}" and starts:
            start = starts.pop()
            if start is not None:
                last, end = Box(text[start : match.start()], start), match.start()
    unclosed = max((start for start in starts if start is not None), default=-1)
    if unclosed <= end or finished is False or (finished is None and last is not None):
        return last
    inner = len(starts) - 1 - starts.index(unclosed)  # braces that are open within it
    rest = _read_unclosed(text[unclosed : unclosed + _MAX_UNCLOSED + 1], inner, _MAX_UNCLOSED if finished else _SHORT)
    return last if rest is None else Box(rest, unclosed)


def _read_unclosed(rest: str, inner: int, most: int) -> str | None:
    """The content of a box that is never closed, with so many braces open within it; None if it looks cut off."""
    rest = _BEHIND.sub("", rest)
    if rest.endswith((")", "]")) and rest.count("(") + rest.count("[") < rest.count(")") + rest.count("]"):
        rest = rest[:-1] if rest[-2:-1] != "\\" else rest  # the wrong bracket closes it
    # A paragraph behind it is prose, which no box holds; an argument that was never written makes no answer.
    if not rest or len(rest) > most or "\n\n" in rest or rest.endswith("{}"):
        return None
    if most == _SHORT and (inner or len(rest.split()) > _FEW_WORDS):
        return None
    return rest + "}" * inner
