"""Keeps a gated data set's questions out of results: what a chain quotes from its question is blacked out, in place.

Authors of gated sets ask that their questions appear nowhere in plain text, so that no model trains on them. A chain's
text is stored, and models repeat the question while they think.
"""

import re

RUN = 6  # words in a row that make a quotation
_WORD = re.compile(r"\w+")
_BLACK = "█"


def redact(text: str, question: str) -> str:
    """A text in which every run of `RUN` or more words that also stands in the question is blacked out.

    The result has the text's length, and lines, spaces and punctuation stay, so positions in it still hold. Words of
    one character and the word "answer" stay too: an answer found in the text is found in the result.

    Args:
        text: What a model wrote.
        question: The prompt it was given: question and options.
    """
    question_words = [match.group().casefold() for match in _WORD.finditer(question)]
    quotations = {tuple(question_words[i : i + RUN]) for i in range(len(question_words) - RUN + 1)}
    places = list(_WORD.finditer(text))
    words = [match.group().casefold() for match in places]
    result, black = list(text), -1  # the last word that is to be blacked out, so far
    for i, word in enumerate(words):
        if tuple(words[i : i + RUN]) in quotations:
            black = i + RUN - 1
        if i <= black and len(word) > 1 and word != "answer":
            start, end = places[i].span()
            result[start:end] = _BLACK * (end - start)
    return "".join(result)
