"""Grades multiple choice: ``Answer: X``, as in GPQA."""

import re
import string
import unicodedata
from typing import Any, NamedTuple

from hyperscale.scoring.graders.base import Grader, after_thinking
from hyperscale.scoring.graders.forms.boxes import find_last_box

_WINDOW = 300  # characters behind a cue in which its letter stands

# "Answer:", "**The correct answer** is:", "final answer - ", "The correct option is"; not "answers:".
_CUE = re.compile(
    r"(?<![A-Za-z0-9])(?:answer(?:[ \t]+(?:choice|option|letter))?"
    r"|(?:option|choice)(?=\s*:)|(?:correct|right|best|final|chosen)[ \t]+(?:option|choice|letter))(?![A-Za-z0-9])"
    r"[ \t*_`\"'\u201d)\]}$|]{0,8}"
    r"(?:(?P<verb>is|should\s+be|must\s+be|would\s+be)(?![A-Za-z])[ \t*_]{0,4})?"
    r"(?P<mark>[:=]>?|[-\u2013\u2014](?=[\s*])|->|\u2192|\n)?",
    re.IGNORECASE,
)
# "<B>" alone is an option's letter in brackets, with "</B>" behind it a tag.
_TAG = re.compile(
    r"</?(?:(?-i:[biups])|em|strong|span|div|code|mark|br)\s*/?>|<([BIUPS])>(?=[^\n]*</\1>)|</[BIUPS]>|<\|[^|\n<>]{1,30}\|>",
    re.IGNORECASE,
)
_ANSWER_TAG = re.compile(r"<answer\s*>[ \t\n]*([^\s<])", re.IGNORECASE)
_ANSWER_END = re.compile(r"</?answer\s*>", re.IGNORECASE)
# Commands that change how a letter looks; any other one makes a formula of it.
_COMMAND = re.compile(
    r"\\(?:(?:boxed|fbox|framebox|text[a-z]*|math(?:rm|bf|it|sf|tt|bb|cal|normal|scr|frak)|boldsymbol|bm|mbox|hbox|emph|ensuremath"
    r"|underline|operatorname\*?|color\{[a-z]+\}|[lL]arge|LARGE|[hH]uge|displaystyle|bf|rm|it|left|right|q?quad)"
    r"(?![A-Za-z])|[(){}\[\],;:!]|(?=\s|$))"
)
_QUOTATION = re.compile('[*_`"$\u2018\u201c\u201d\u00ab\u00bb\u300c\u300d\u3010\u3011{}<>|]')
# In front of the letter: brackets, symbols such as a tick, and words that announce it.
_OPENING = re.compile(
    r"(?:[\s(\[:=~'\u2018\u2019]|[^\w\s\x00-\x7f\u00ac\u00b0\u00b1\u2212\u2260])*"
    r"(?:(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:option|choice|letter|answer)(?![A-Za-z])[\s:(\[]*(?:is\s[\s:(\[]*)?)?",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[A-Z](?![A-Za-z0-9^]|['\u2019]\w)['\u2019]?")
_ANOTHER = re.compile(
    r"[\s)\].(]*(?:,|/|&|\+|;|(?:,\s*)?(?:and/or|and|or|vs\.?|versus|as\s+well\s+as|along\s+with|together\s+with)(?![A-Za-z]))[\s(\[]*"
    r"(?:(?:also|maybe|possibly|perhaps|else)\s+)?(?:(?:option|choice)\s+)?[(\[]?[A-Z](?![A-Za-z0-9'\u2019])"
)
# What may follow the letter; in "A reaction", "C = 3" or "D-glucose" it is no option's letter.
_FOLLOWING = re.compile(
    r"[\s=~]*(?:$|[)\]]|(?<=\s)\(|[^\w\s\x00-\x7f\u00ac\u00b0\u00b1\u2212\u2260\u2190-\u22ff\u2013\u2014]+\s*$|[.!?](?:\s|$|[^\w\s]|[A-Z][a-z])|[:;,](?:\s|$|[^\w\s]|[a-z])|\\+$)|\s+[-\u2013\u2014]+\s"
    r"|\s+(?:is|was)\s+(?:the\s+)?(?:only\s+|most\s+)?(?:correct|right|best|true|answer|accurate|appropriate)"
    r"|\s+(?:because|since|as\s+(?:it|the)|due\s+to)(?![A-Za-z])"
)
_HEDGE = re.compile(
    r"(?:none|neither|either|both|all|any|not|unknown|unsure|unclear|undetermined|cannot|can't|could|i\s+(?:don't|do\s+not"
    r"|am\s+not|cannot|can't)|i'm\s+not|it\s+(?:depends|could|may)|there\s+is\s+no|no\s)",
    re.IGNORECASE,
)
_ALONE = re.compile(
    r"(?:(?:so|thus|hence|therefore|i\s+(?:choose|pick|select|would\s+go\s+with)),?\s+)?"
    r"(?:(?:the\s+)?(?:option|choice)\s+[(\[]?(?P<option>[A-Z])[)\]]?(?:\s+is\s+(?:the\s+)?(?:(?:correct|right|best)"
    r"(?:\s+(?:answer|option|choice))?|answer))?|[(\[]?(?P<letter>[A-Z])[)\]]?\s+is\s+(?:the\s+)?"
    r"(?:(?:correct|right|best)(?:\s+(?:answer|option|choice))?|answer))[.!]?",
    re.IGNORECASE,
)


class _Statement(NamedTuple):
    """What a text says about the answer, from a place to an end; no letter if it names several or refuses to."""

    place: int
    end: int
    letter: str | None


class ChoiceGrader(Grader):
    """The letter of the last ``Answer: X`` or box after the thinking; what names several letters is no answer.

    Args:
        options: How many options the task's questions have; a letter beyond them is no answer either.
    """

    name = "choice"
    cue = "\n\nAnswer:"

    def __init__(self, options: int = 4) -> None:
        self._letters = string.ascii_uppercase[:options]

    def extract(self, text: str, *, finished: bool | None = None) -> str | None:
        """The letter, upper case as written, or None."""
        answer = after_thinking(text)
        if answer is None:
            return None
        answer = _ANSWER_TAG.sub(r"\nAnswer: \1", unicodedata.normalize("NFKC", answer))
        answer = _TAG.sub(" ", _ANSWER_END.sub("\n", answer))
        marked: list[_Statement] = []  # with a colon or in a box; the others count only where there is none
        others: list[_Statement] = []
        for cue in _CUE.finditer(answer):
            statement = _read_cue(answer, cue)
            if statement is not None:
                (marked if cue["mark"] not in (None, "\n") else others).append(statement)
        box = _read_box(answer, finished)
        if box is not None and not any(one.place <= box.place < one.end for one in marked):
            marked.append(box)
        statement = max(marked or others, default=None, key=lambda one: one.place)
        letter = _read_last_line(answer) if statement is None else statement.letter
        return letter if letter is not None and letter in self._letters else None

    def correct(self, answer: str, target: Any) -> bool:
        """Whether the letter is the target's."""
        return answer == str(target).strip().upper()


def _read_cue(text: str, cue: re.Match[str]) -> _Statement | None:
    """What stands behind a cue; None if that says nothing about the letter."""
    if cue["mark"] is None and cue["verb"] is None:
        return None
    window = text[cue.end() : cue.end() + _WINDOW]
    start = 0
    for line in window.split("\n"):
        end = start + len(line) + 1
        if plain := _plain(line):
            found, letter = _read_letter(plain)
            # A heading alone announces nothing but a letter alone.
            if not found or (cue["mark"] == "\n" and not re.fullmatch(r"[\s(\[]*[A-Z][\s)\].]*", plain)):
                return None
            return _Statement(cue.start(), cue.end() + end, letter)
        start = end
    return None


def _read_box(text: str, finished: bool | None) -> _Statement | None:
    """The last box, if it says something about the letter."""
    box = find_last_box(text, finished=finished)
    if box is None:
        return None
    found, letter = _read_letter(_plain(box.content[:_WINDOW]))
    return _Statement(box.start, len(text), letter) if found else None


def _read_last_line(text: str) -> str | None:
    """The letter of a last line that says nothing but ``Option C``."""
    lines = text.strip().rsplit("\n", 1)
    match = _ALONE.fullmatch(_plain(lines[-1][:_WINDOW]))
    letter = match and (match["option"] or match["letter"])
    return letter if letter and letter.isupper() else None


def _plain(line: str) -> str:
    """A line without emphasis, quotation marks and commands that change no letter."""
    return " ".join(_QUOTATION.sub(" ", _COMMAND.sub("", line)).split())


def _read_letter(plain: str) -> tuple[bool, str | None]:
    """Whether a plain text says something about the letter at its start, and the letter if it names one."""
    opening = _OPENING.match(plain)
    place = opening.end() if opening else 0
    letter = _LETTER.match(plain, place)
    if letter is None:
        return _HEDGE.match(plain, place) is not None, None
    if _ANOTHER.match(plain, letter.end()):
        return True, None
    if _FOLLOWING.match(plain, letter.end()):
        return True, letter.group()[0]
    return _HEDGE.match(plain, place) is not None, None
