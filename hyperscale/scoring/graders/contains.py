"""Grades answers that have to contain all of several texts, as in RULER (arXiv 2404.06654): no box is needed."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from hyperscale.scoring.graders.base import Grader, after_thinking, keep_ends

# Between the thousands of a number: a space of its own can stand nowhere else, a comma between two numbers too.
_SPACED = re.compile(r"(?<=\d)[\u202f\u2009\u00a0](?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Scripts that write no spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class ContainsGrader(Grader):
    """The text after the thinking; right if every text of the target stands in it, as a word of its own.

    Case and spacing do not count, nor do commas between the thousands of a number.
    """

    name = "contains"

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The text after the thinking, its spacing folded; what was cut off counts as far as it goes."""
        answer = after_thinking(text)
        return None if answer is None or not answer.strip() else keep_ends(_fold_spacing(answer))

    def correct(self, answer: str, target: Any) -> bool:
        """Whether an answer contains all texts of the target, a list (or a single text)."""
        texts = [target] if isinstance(target, str) else target
        folded = _fold(answer)
        # As it is written, and without marks between thousands: "100,200,300" is one number or three.
        forms = (folded, _GROUPED.sub("", folded))
        parts = [_fold(str(text)) for text in texts]
        return all(_contains(forms[0], part) or _contains(forms[1], _GROUPED.sub("", part)) for part in parts)

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether two answers are the same but for case, spacing and marks between thousands."""
        return [_GROUPED.sub("", _fold(first)) == _GROUPED.sub("", _fold(second)) for first, second in pairs]


def _contains(text: str, part: str) -> bool:
    """Whether a part stands in a text and is not the middle of a longer word or number."""
    before = "" if _UNSPACED.match(part) else r"(?<!\w)"
    behind = "" if _UNSPACED.match(part[-1:]) else r"(?!\w)"
    if part[:1].isdigit():  # no digits of 2.5, of 3/5, of 12:30; no -5, but in a range
        before += r"(?<!\d[.:/])(?<!^[-\u2212])(?<![^\w)][-\u2212])"
    if part[-1:].isdigit():
        behind += r"(?![.:/]\d)"
    return re.search(rf"{before}{re.escape(part)}{behind}", text) is not None


def _fold(text: str) -> str:
    return _fold_spacing(unicodedata.normalize("NFC", text)).casefold()


def _fold_spacing(text: str) -> str:
    return " ".join(_SPACED.sub("", text).split())
