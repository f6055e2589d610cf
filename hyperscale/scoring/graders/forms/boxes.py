r"""Finds the box a text states its answer in: ``\boxed{...}``, ``\fbox{...}`` and their kin."""

import re

# Two backslashes are one that was escaped once too often. MathJax's \bbox has options in brackets.
_COMMAND = r"\\{1,2}(?:boxed|fbox|framebox|bbox)(?![A-Za-z])\s*(?:\[[^\[\]{}\n]{0,80}\]\s*)?"
_TOKEN = re.compile(rf"(?P<box>{_COMMAND}\{{)|(?P<bare>{_COMMAND})(?!\{{)|\\.|[{{}}]", re.DOTALL)
# What may stand without braces behind the command: a number, a letter, or a command with its arguments.
_BARE = re.compile(
    r"\$?\(?(?:[+\u2212-]?\s*[0-9](?:[0-9.,]*[0-9])?(?![A-Za-z0-9^_{\\]|[.,][0-9])|[A-Za-z](?! ?[A-Za-z])"
    r"|[+\u2212-]?\\[A-Za-z]+(?:\s*\{[^{}]{0,200}\}){1,2})\)?"
)
_MAX_UNCLOSED = 500  # characters that may follow a box that is never closed


def last_box(text: str, *, finished: bool | None = False) -> str | None:
    r"""Content of the box that ends last, or None. One pass, whatever the nesting.

    A box without braces counts (``\boxed 73``), and so, at the end of a finished text, does one that is never closed.

    Args:
        text: Any text.
        finished: Whether the model ended the text itself; a text that was cut off may end inside a box. None if that is
            not known: then a box that is never closed counts where there is no other.
    """
    # Of each open brace: where a box's content starts, or None if it is no box's.
    starts: list[int | None] = []
    content: str | None = None
    end = -1  # where the last box ends
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "box":
            starts.append(match.end())
        elif match.lastgroup == "bare":
            bare = _BARE.match(text, match.end())
            # A cut-off text may end inside a number.
            if bare is not None and (finished is not False or bare.end() < len(text)):
                content, end = bare.group(), bare.end()
        elif token == "{":
            starts.append(None)
        elif token == "}" and starts:
            start = starts.pop()
            if start is not None:
                content, end = text[start : match.start()], match.start()
    unclosed = max((start for start in starts if start is not None), default=-1)
    if (
        (finished or (finished is None and content is None))
        and unclosed > end
        and len(text) - unclosed <= _MAX_UNCLOSED
    ):
        rest = text[unclosed:].rstrip()
        # A paragraph behind it is prose, which no box holds; an argument that was never written makes no answer.
        if rest and "\n\n" not in rest and not rest.endswith("{}"):
            inner = len(starts) - 1 - starts.index(unclosed)  # braces that are open within it
            return content if inner and not finished else rest + "}" * inner
    return content
