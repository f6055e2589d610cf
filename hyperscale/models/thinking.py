"""The marks that reasoning models write around their thinking, and where a text's answer begins.

Whether a text must close a thinking follows from what was prompted and written. If the prompt or the text opened one,
the answer is what follows its end, and a thinking that was never closed has none. Where nothing was opened the whole
text is the answer: the model does not think, or thinks aloud.

`TABLE` has the marks in use. A model of another kind says its own in models.yaml (``thinking``), and added tokens of a
tokenizer that look like a pair of such marks are taken for one (`marks_of_tokens`).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

THINKING = "<think>"
END_OF_THINKING = "</think>"

State = Literal["none", "open", "closed"]
"""Of a thinking at the end of a text: never opened, open, or opened and closed."""


@dataclass(frozen=True)
class Marks:
    """A pair of marks.

    Attributes:
        opening: How a thinking is opened.
        closing: How it is closed; also what is inserted to close it.
        users: Models that write them.
        forced: What is inserted to close it and begin an answer, if that is more than ``closing``.
        opening_pattern: Regular expression of the opening, where it has several forms; else its text.
        closing_pattern: The same of the closing.
        end_token: The token by which the model itself ends its thinking, if that is not ``closing``.
        is_prose: Whether the marks are plain words, which open a thinking only at the beginning of a text.
    """

    opening: str
    closing: str
    users: str = ""
    forced: str = ""
    opening_pattern: str = ""
    closing_pattern: str = ""
    end_token: str = ""
    is_prose: bool = False

    @property
    def patterns(self) -> tuple[str, str]:
        """Regular expressions of opening and closing."""
        return self.opening_pattern or re.escape(self.opening), self.closing_pattern or re.escape(self.closing)

    @property
    def insertion(self) -> str:
        """What is inserted to close a thinking, so that an answer follows."""
        return self.forced or self.closing


TABLE = (
    Marks(
        THINKING,
        END_OF_THINKING,
        "DeepSeek-R1, Qwen3, QwQ, GLM-4.5, Phi-4-reasoning, Nemotron, EXAONE 4, OLMo 3, …",
        opening_pattern="(?i:<think>)",
        closing_pattern="(?i:</think>)",
    ),
    Marks("[THINK]", "[/THINK]", "Magistral"),
    Marks(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "gpt-oss",
        opening_pattern=r"<\|channel\|>\s*(?:analysis|commentary)[^<]*<\|message\|>",
        closing_pattern=r"<\|channel\|>\s*final[^<]*<\|message\|>",
        forced="<|end|><|start|>assistant<|channel|>final<|message|>",
        end_token="<|end|>",
    ),
    Marks(
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        "Sky-T1, OpenThinker",
        forced="<|end_of_thought|>\n\n<|begin_of_solution|>",
    ),
    Marks(
        "<reasoning>",
        "</reasoning>",
        "models trained on such a format",
        opening_pattern="(?i:<reasoning>)",
        closing_pattern="(?i:</reasoning>)",
    ),
    Marks(
        "<thinking>",
        "</thinking>",
        "Reflection, prompts in Anthropic's style",
        opening_pattern="(?i:<thinking>)",
        closing_pattern="(?i:</thinking>)",
    ),
    Marks(
        "<thought>",
        "</thought>",
        "EXAONE Deep, Marco-o1",
        opening_pattern="(?i:<thought>)",
        closing_pattern="(?i:</thought>)",
    ),
    Marks("◁think▷", "◁/think▷", "Kimi-VL"),
    Marks("<seed:think>", "</seed:think>", "Seed-OSS"),
    Marks("<longcat_think>", "</longcat_think>", "LongCat"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>", "Command A Reasoning", forced="<|END_THINKING|><|START_RESPONSE|>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>", "Apertus"),
    Marks("<|channel>thought\n", "<channel|>", "Gemma 4", opening_pattern=r"<\|channel>thought\b"),
    Marks("<unused94>thought\n", "<unused95>", "MedGemma", opening_pattern=r"<unused94>(?:thought\b)?"),
    Marks(
        "Here is my thought process:",
        "Here is my response:",
        "Granite 3.2",
        opening_pattern=r"Here(?:'s| is) (?:my )?thought process:",
        closing_pattern=r"Here(?:'s| is) (?:my )?response:",
        forced="\n\nHere is my response:",
        is_prose=True,
    ),
)
"""Marks in use, those of most models first."""

_FENCE = "```"
_QUOTES = "`\"'"
_TAG = re.compile(r"<[^<>\s]+>")
_WORD = re.compile(r"think|thought|reason", re.IGNORECASE)
# Of a token's name: what says on which side of the thinking it stands.
_OPENS = re.compile(r"begin(?:_?of)?|start(?:_?of)?|bo|open|prefix", re.IGNORECASE)
_CLOSES = re.compile(r"/|end(?:_?of)?|eo|close|suffix|stop", re.IGNORECASE)


def answer_text(text: str) -> str | None:
    """The part of a text that may hold its answer: what follows the last thinking, or all if there was none.

    Args:
        text: What the prompt opened, followed by what was written; it may be cut anywhere.

    Returns:
        None if a thinking was opened and never closed: whatever stands in it is no answer.
    """
    start = 0
    marks = None
    for start, marks in _turns(text):  # noqa: B007  # the last one counts
        pass
    return text[start:] if marks is None else None


def open_marks(text: str) -> Marks | None:
    """The marks of the thinking that is open at the end of a text; None if none is."""
    marks = None
    for _, marks in _turns(text):  # noqa: B007
        pass
    return marks


def state(text: str) -> State:
    """Whether a thinking was opened, and closed, in a text."""
    marks, seen = None, False
    for _, marks in _turns(text):  # noqa: B007
        seen = True
    return "none" if not seen else "closed" if marks is None else "open"


def ends_in_mark(text: str) -> bool:
    """Whether a text ends in a mark, of whatever kind."""
    return any(match.end() == len(text) for match in _pattern().finditer(text))


def in_table_marks(text: str, marks: tuple[str, str] | None) -> str:
    """A text in which a model's own marks are written as the first of the table, which graders know."""
    if marks is None:
        return text
    return text.replace(marks[0], THINKING).replace(marks[1], END_OF_THINKING)


def find(opening: str) -> Marks | None:
    """The marks of the table with this opening."""
    return next((marks for marks in TABLE if marks.opening == opening), None)


def tokens_of_marks(own: tuple[str, str] | None = None) -> frozenset[str]:
    """Texts of the tokens that the table's marks, and a model's own, are made of: whole marks and tags in them."""
    texts = [text for marks in TABLE for text in (marks.opening, marks.closing)] + list(own or ())
    return frozenset(texts).union(*(_TAG.findall(text) for text in texts))


def mark_spans(text: str, own: tuple[str, str] | None = None) -> list[tuple[int, int]]:
    """Where the marks of the table, and a model's own, stand in a text: beginning and end of each."""
    patterns = [_pattern(), *(re.compile(re.escape(mark)) for mark in own or ())]
    return [match.span() for pattern in patterns for match in pattern.finditer(text)]


def marks_of_tokens(tokens: Iterable[str]) -> tuple[str, str] | None:
    """Opening and closing among a tokenizer's added tokens that no table knows, e.g. ``<|think_start|>``.

    They are a pair if their names speak of thinking and differ only in a word that opens and one that closes.
    """
    known = {text for marks in TABLE for text in (marks.opening, marks.closing)}
    names = [token for token in tokens if _WORD.search(token) and token not in known]
    closings = {_bare(token, _CLOSES): token for token in names if _CLOSES.search(_beside_word(token))}
    for token in names:
        closing = closings.get(_bare(token, _OPENS))
        if closing is not None and closing != token and token not in closings.values():
            return token, closing
    return None


def _beside_word(token: str) -> str:
    return _WORD.sub(" ", token)


def _bare(token: str, side: re.Pattern[str]) -> str:
    """A token's name without what says on which side it stands."""
    head, word, tail = re.split(f"({_WORD.pattern})", token, maxsplit=1, flags=re.IGNORECASE)
    return re.sub(r"[^a-z]", "", f"{side.sub('', head)}{word}{side.sub('', tail)}".lower())


def _turns(text: str) -> Iterator[tuple[int, Marks | None]]:
    """Where a thinking begins or ends in a text: the place behind the mark, and what is open from there on."""
    marks: Marks | None = None
    mentioned: set[str] = set()  # openings that the text only speaks of: it may speak of their ends as well
    fences, counted = 0, 0  # code fences, up to this place
    for match in _pattern().finditer(text):
        # Groups are opening and closing of each pair of marks, in the table's order.
        index, is_closing = divmod(int(match.lastindex or 1) - 1, 2)
        found = TABLE[index]
        fences += text.count(_FENCE, counted, match.start())
        counted = match.start()
        is_mention = fences % 2 == 1 or _is_quoted(text, match)
        if marks is not None:
            # A thinking is closed by its own mark, wherever that stands.
            if is_closing and marks is found:
                marks = None
                yield match.end(), None
        elif is_closing:
            # A prompt that is not known here may have opened it.
            if not (found.is_prose or (is_mention and found.opening in mentioned)):
                yield match.end(), None
        elif is_mention or (found.is_prose and text[: match.start()].strip()):
            mentioned.add(found.opening)
        else:
            marks = found
            yield match.end(), found


def _is_quoted(text: str, match: re.Match[str]) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return before != "" and before in _QUOTES and before == after


@cache
def _pattern() -> re.Pattern[str]:
    marks = "|".join(f"({opening})|({closing})" for opening, closing in (m.patterns for m in TABLE))
    # Looking at the first character alone first is many times faster: chains are long, and read at every cut.
    first = "".join({text[0] for m in TABLE for text in (m.opening, m.closing)})
    return re.compile(f"(?=[{re.escape(first)}])(?:{marks})")
