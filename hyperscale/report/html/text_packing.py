"""Packs many texts into little room: compressed, and the longest shortened in the middle until all of them fit."""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

PROBE = 4_000_000  # characters from which compression is estimated
LEAST = 200  # characters: below this a text says nothing, and none is kept
HEAD = 0.4  # share of a shortened text that is its beginning; the answer stands at the end

Text = str | list[str | int] | None


class PackedTexts(NamedTuple):
    """Blocks of texts, as the page's script reads them.

    Attributes:
        blocks: One a group: base64 of zlib-compressed JSON, a list of texts. A shortened text is [beginning, number of
            characters left out, end]; a text left out altogether is null.
        limit: The most characters of a text that are kept, or None if all texts are whole.
        n_shortened: Number of texts that are not whole.
    """

    blocks: list[str]
    limit: int | None
    n_shortened: int


def pack_texts(groups: Sequence[Sequence[str]], room: int) -> PackedTexts:
    """Pack groups of texts into at most ``room`` bytes.

    Every text gets the same limit of characters, so that short ones stay whole.

    Args:
        groups: Texts that are read together.
        room: Bytes for all blocks together.
    """
    lengths = sorted(len(text) for group in groups for text in group)
    longest = limit = max(lengths, default=0)
    # A limit found on a part of the groups holds for all of them nearly always, so that all are compressed only once.
    probe = groups[:: max(1, sum(lengths) // PROBE)]
    share = sum(len(text) for group in probe for text in group) / max(sum(lengths), 1)
    blocks: list[str] = []
    for part, part_room in ((probe, share * room), (groups, room)):
        # Lower the limit until the blocks fit, guessing that their size goes with the characters kept.
        while limit:
            blocks = _blocks(part, limit)
            size = sum(map(len, blocks))
            if size <= part_room:
                break
            limit = fair_limit(lengths, int(0.97 * part_room / size * sum(min(n, limit) for n in lengths)))
            limit = limit if limit >= LEAST else 0
    return PackedTexts(blocks if limit else [], limit if limit < longest else None, sum(n > limit for n in lengths))


def fit_whole(groups: Sequence[Sequence[str]], room: int) -> bool:
    """Whether all texts fit into ``room`` bytes as they are, judged by a part of them where there are many."""
    total = sum(len(text) for group in groups for text in group)
    probe = groups[:: max(1, total // PROBE)]
    share = sum(len(text) for group in probe for text in group) / max(total, 1)
    return sum(len(compress(list(group))) for group in probe) <= share * room


def _blocks(groups: Sequence[Sequence[str]], limit: int) -> list[str]:
    return [compress([shorten(text, limit) for text in group]) for group in groups]


def fair_limit(lengths: Sequence[int], total: int) -> int:
    """The limit under which texts of these lengths (ascending) have ``total`` characters together."""
    for i, length in enumerate(lengths):
        share = total // (len(lengths) - i)
        if length > share:
            return share
        total -= length
    return lengths[-1] if lengths else 0


def shorten(text: str, limit: int) -> Text:
    """A text, or its beginning and end with the number of characters between."""
    if len(text) <= limit:
        return text
    head = int(HEAD * limit)
    return [text[:head], len(text) - limit, text[len(text) - (limit - head) :]]


def compress(value: Any) -> str:
    """JSON as text that is safe anywhere in a page."""
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    return base64.b64encode(zlib.compress(data)).decode("ascii")
