"""Keeps a gated data set's questions out of results: what a chain quotes from its question is blacked out, in place.

Authors of gated sets ask that their questions appear nowhere in plain text, so that no model trains on them. A chain's
text is stored, and models repeat the question while they think.
"""

import re

from hyperscale.models import thinking

RUN = 6  # words in a row that make a quotation
_WORD = re.compile(r"\w+")
_BLACK = "█"
# What graders look for: commands of LaTeX, fences of code, tags and words that announce an answer.
_CUE = re.compile(
    r"\\[A-Za-z]+|```[ \t]*\w*|</?answer>|<\|[^|\n<>]{1,40}\|>"
    r"|(?<![A-Za-z0-9])(?:(?:correct|right|best|final|chosen)\s+)?(?:answer|option|choice|letter)(?![A-Za-z0-9])"
    r"(?:[\s*_`]{1,4}(?:is|should\s+be|must\s+be|would\s+be)(?![A-Za-z0-9]))?",
    re.IGNORECASE,
)
_SMALL = frozenset({
    "the", "is", "are", "was", "be", "should", "must", "and", "or", "nor", "not", "no", "none", "neither",
    "either", "both", "all", "any", "only", "most", "correct", "right", "best", "final", "chosen", "true", "because",
    "since", "as", "it", "due", "to", "also", "maybe", "possibly", "perhaps", "else", "there", "depends", "may",
    "could", "cannot", "can", "don", "do", "am", "unknown", "unsure", "unclear", "undetermined", "vs", "versus",
    "so", "thus", "hence", "therefore", "choose", "pick", "select", "would", "go", "with", "well", "along", "together",
})  # fmt: skip
"""Words that tell nothing of a question, and decide what a sentence says of its answer."""


def redact(text: str, question: str, *, marks: tuple[str, str] | None = None, keep_small: bool = False) -> str:
    """A text in which every run of `RUN` or more words that also stands in the question is blacked out.

    The result has the text's length, and lines, spaces and punctuation stay, so positions in it still hold. Marks of
    thinking, what announces an answer, and words of one character stay too: an answer found in the text is found in
    the result.

    Args:
        text: What a model wrote.
        question: The prompt it was given: question and options.
        marks: Marks of the model's own, as in `Sample`.
        keep_small: Whether words like "or" and "not" stay as well.
    """
    kept = [*thinking.mark_spans(text, marks), *(match.span() for match in _CUE.finditer(text))]
    is_kept = bytearray(len(text))  # of each character
    for start, end in kept:
        is_kept[start:end] = b"\1" * (end - start)
    question_words = [match.group().casefold() for match in _WORD.finditer(question)]
    quotations = {tuple(question_words[i : i + RUN]) for i in range(len(question_words) - RUN + 1)}
    places = list(_WORD.finditer(text))
    words = [match.group().casefold() for match in places]
    result, black = list(text), -1  # the last word that is to be blacked out, so far
    for i, word in enumerate(words):
        if tuple(words[i : i + RUN]) in quotations:
            black = i + RUN - 1
        start, end = places[i].span()
        if (
            i <= black
            and len(word.strip("_")) > 1
            and not any(is_kept[start:end])
            and not (keep_small and word in _SMALL)
        ):
            result[start:end] = _BLACK * (end - start)
    return "".join(result)


def as_words(text: str) -> str:
    """A redacted text in which what is blacked out is words again, as graders have to take it.

    Earlier versions blacked out marks of thinking as well, which are known by their shape.
    """
    for mark in (thinking.THINKING, thinking.END_OF_THINKING):
        text = text.replace(mark.replace("think", _BLACK * len("think")), mark)
    return text.replace(_BLACK, "x")
