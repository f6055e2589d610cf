"""Finds fenced blocks of code in a text, as Markdown has them and as models write them."""

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

# The fence at the start of a line, which may be indented, quoted or a list's item.
_FENCE = re.compile(
    r"(?P<before>[ \t]*(?:(?:>|[-*+]|[0-9]{1,3}[.)])[ \t]+)*)(?P<fence>`{3,}(?!`)|~{3,}(?!~))(?P<info>.*)$"
)
# One that opens a block behind other words: "Here it is: ```python".
_FENCE_BEHIND = re.compile(r"[^`]+(?P<fence>`{3,})[ \t]*(?P<info>(?:python|py|pypy)[^`]*)$", re.IGNORECASE)
_PYTHON = re.compile(r"[\[{(.]*(?:python|py|pypy)[0-9.]*(?![A-Za-z0-9-])", re.IGNORECASE)
# A language, perhaps with attributes, and nothing else: a fence before it opens a block even inside one that was never
# closed. "``` Output: 6" is a closing fence with text behind it.
_ATTRIBUTE = r"(?:[\w.-]+=(?:\"[^\"]*\"|[^\s,\"]*)|\{[^{}]*\}|[\w-]+\.py)"
_LANGUAGE = re.compile(
    r"[\[{(.]*(?:i?python|py|pypy|text|txt|plain(?:text)?|console|bash|sh|shell|zsh|cmd|powershell|c|cpp|c\+\+|cc|cs"
    r"|csharp|c#|java|javascript|js|ts|typescript|go|golang|rust|rs|ruby|rb|kotlin|scala|swift|php|perl|haskell|hs|r|sql"
    r"|html|css|json|ya?ml|toml|xml|markdown|md|latex|tex|output|input|example|code|diff|mermaid|pseudo(?:code)?)"
    rf"[0-9.]*[\]}})]*(?:[\s,:]+{_ATTRIBUTE}(?:[\s,]+{_ATTRIBUTE})*)?\s*$",
    re.IGNORECASE,
)


class Block(NamedTuple):
    """A fenced block that was closed.

    Attributes:
        info: What follows the opening fence: the language, perhaps with attributes.
        content: The lines between the fences, without the indentation of the fence.
    """

    info: str
    content: str

    @property
    def is_python(self) -> bool:
        """Whether it is marked as Python: ``python``, ``py``, ``python3``, ``pypy3``, ``{.python}``, any attributes."""
        return _PYTHON.match(self.info) is not None

    @property
    def is_bare(self) -> bool:
        """Whether it names no language; attributes alone, as in ``title=x``, name none."""
        return not self.info or re.match(r"[\w-]+\s*=", self.info) is not None


class _Opening(NamedTuple):
    fence: str
    info: str
    before: str
    first: int  # index of the line behind it


def find_blocks(text: str) -> Iterator[Block]:
    """The blocks of a text, in order; one pass, however many are opened and never closed.

    A block ends at a fence of its kind that is at least as long, even with text behind it, or at the end of a line of
    code. A fence that names a language opens a new block: the one it stands in was never closed, and is none.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    opening: _Opening | None = None
    for index, line in enumerate(lines):
        if "```" not in line and "~~~" not in line:
            continue
        match = _FENCE.match(line)
        if match is not None and match["fence"].startswith("`") and "`" in match["info"]:
            match = None  # code within a line
        if opening is None:
            match = match or _FENCE_BEHIND.match(line)
            if match is not None:
                opening = _opening(match, index)
        elif match is not None:
            info = match["info"].strip()
            if not match["fence"].startswith(opening.fence):
                continue  # a shorter fence, or one of the other kind, is content
            if info and _LANGUAGE.match(info):
                opening = _opening(match, index)
            else:
                yield _block(opening, lines[opening.first : index])
                opening = None
        elif (
            line.lstrip()[:1] != "#"
            and line.rstrip().endswith(opening.fence)
            and line.count(opening.fence[0]) == len(opening.fence)
        ):
            last = line.rstrip().removesuffix(opening.fence)
            yield _block(opening, [*lines[opening.first : index], last])
            opening = None


def _opening(match: re.Match[str], index: int) -> _Opening:
    return _Opening(match["fence"], match["info"].strip(), match.groupdict().get("before") or "", index + 1)


def _block(opening: _Opening, lines: list[str]) -> Block:
    """A block from its lines, which lose the quotation marks and the indentation that its fence has."""
    if ">" in opening.before:
        quotes = opening.before.count(">")
        lines = [re.sub(rf"^(?:[ \t]*>[ \t]?){{0,{quotes}}}", "", line) for line in lines]
    elif indent := len(opening.before.expandtabs(4)):
        lines = [_unindent(line, indent) for line in lines]
    # What is indented still is so by mistake: no program begins with an indented line.
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    content = "".join(f"{line}\n" for line in lines)
    return Block(opening.info, textwrap.dedent(content) if first[:1] in (" ", "\t") else content)


def _unindent(line: str, columns: int) -> str:
    """A line without up to so many columns of white space."""
    place = width = 0
    while place < len(line) and line[place] in " \t" and width < columns:
        width += 4 if line[place] == "\t" else 1
        place += 1
    return line[place:]
