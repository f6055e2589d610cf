"""Makes the text that what is asked about is hidden in: repeated filler, generated prose, or the user's own text."""

import re
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random

from hyperscale.errors import TaskError, first_line
from hyperscale.tasks.context.words import ADJECTIVES, NAMES, NOUNS, PLACES
from hyperscale.utils.paths import expand_home
from hyperscale.utils.row_files import list_data_files

FILLER = "filler"
PROSE = "prose"
OWN = "text"
KINDS = (PROSE, FILLER)
"""Names of the haystacks that are generated; the user's own text is given as a file."""

Sentences = Callable[[Random], Iterator[str]]
"""Endless sentences, which only depend on what draws them."""

_FILLER = (
    "The rain falls on the roof and runs down to the street.",
    "The street leads to the square, and the square to the river.",
    "A boat goes by, then another one.",
    "In the evening the lamps are lit.",
    "The day ends as it has begun.",
)
_PATTERNS = (
    "{name} walked to {place} and bought {a_adjective} {noun}.",
    "On the way home {name} met {other}, who had lost {a_noun}.",
    "Nobody at {place} remembered the {adjective} {noun} that {name} had described.",
    "When the weather turned {weather}, {name} closed the door and read about {a_noun}.",
    "It took {name} {number} days to paint the {noun} in front of {place}.",
    "{name} told {other} a long story about {a_noun} and {a_adjective} {thing}.",
    "At {place} there was {a_noun}, {adjective} and older than anyone could say.",
    "Before breakfast {name} counted {number} birds above {place}.",
    "{other} asked {name} to bring the {noun} back to {place} by the end of the week.",
    "The {weather} morning found {name} asleep beside {a_adjective} {noun}.",
    "Some people said that the {noun} came from {place}, and {name} believed them.",
    "{name} wrote a letter to {other} and drew {a_adjective} {thing} under it.",
    "For {number} years {name} had kept {a_noun} behind {place}.",
    "Later that day {name} and {other} carried the {adjective} {noun} across the road.",
)
_WEATHER = ("cold", "grey", "hot", "mild", "rainy", "stormy", "warm", "wet", "windy")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n\s*\n")
# Characters of a unit of the user's own text. What is hidden stands between units, at a share of them, and an excerpt
# is made longer by one at a time: sentences of very different lengths would not do for either, nor a text without any.
_LEAST_UNIT, _MOST_UNIT = 60, 200
_MOST_WITHOUT_SPACES = 60  # of writing that has no spaces, a token or more each
_SUFFIXES = (".txt", ".md", ".rst")


def sentences_of(haystack: str, data: str | None) -> Sentences:
    """The sentences of a haystack.

    Args:
        haystack: "prose" or "filler"; of no account where there are data.
        data: A text file, or a folder of ``.txt``, ``.md`` and ``.rst`` files, whose sentences are taken instead.

    Raises:
        TaskError: The haystack is unknown, or the file is missing or without text.
    """
    if data is not None:
        own = read_sentences(Path(data))
        return lambda rng: _from(own, rng)
    if haystack == FILLER:
        return lambda rng: cycle(_FILLER)
    if haystack == PROSE:
        return _prose
    raise TaskError(f"haystack is {' or '.join(KINDS)}, not {haystack!r}; a text of your own is given with --data FILE")


def read_sentences(path: Path) -> list[str]:
    """The sentences of a text file, or of a folder's text files in the order of their names, in similar lengths.

    Raises:
        TaskError: There is no such file, or no sentence in it.
    """
    sentences: list[str] = []
    # A file that is named is read whatever it is called, as licences have no suffix.
    named = expand_home(path)
    for file in [named] if named.is_file() else list_data_files(path, _SUFFIXES, TaskError):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(f"cannot read {file} ({first_line(error)}): a haystack is text in UTF-8") from None
        sentences += [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]
    sentences = list(_make_even(sentences))
    if not sentences:
        raise TaskError(f"{path} holds no text: a haystack needs sentences")
    return sentences


def _make_even(sentences: list[str]) -> Iterator[str]:
    """Units of similar lengths: short sentences together, long ones in parts."""
    unit = ""
    for part in (part for sentence in sentences for part in _cut(sentence)):
        unit = f"{unit} {part}" if unit else part
        if len(unit) >= _LEAST_UNIT:
            yield unit
            unit = ""
    if unit:
        yield unit


def _cut(sentence: str) -> Iterator[str]:
    """Parts of a sentence, between words where it has some."""
    words = [
        word[start : start + _MOST_WITHOUT_SPACES]
        for word in sentence.split()
        for start in range(0, len(word), _MOST_WITHOUT_SPACES)
    ]
    part = ""
    for word in words:
        if part and len(part) + 1 + len(word) > _MOST_UNIT:
            yield part
            part = ""
        part = f"{part} {word}" if part else word
    if part:
        yield part


def _from(sentences: list[str], rng: Random) -> Iterator[str]:
    """The sentences in their order from a random one on, again and again."""
    return islice(cycle(sentences), rng.randrange(len(sentences)), None)


def _prose(rng: Random) -> Iterator[str]:
    while True:
        name, other = rng.sample(NAMES, 2)
        noun, thing = rng.sample(NOUNS, 2)
        words = {"noun": noun, "thing": thing, "adjective": rng.choice(ADJECTIVES)}
        yield rng.choice(_PATTERNS).format(
            name=name,
            other=other,
            **words,
            **{f"a_{kind}": f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for kind, word in words.items()},
            place=rng.choice(PLACES),
            weather=rng.choice(_WEATHER),
            number=rng.randint(3, 60),
        )
