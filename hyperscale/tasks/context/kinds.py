"""The questions about long texts: what is hidden in them, and what is asked."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from random import Random
from typing import Any, ClassVar, Self

from hyperscale.errors import TaskError
from hyperscale.tasks.context.haystacks import Sentences
from hyperscale.tasks.context.words import ADJECTIVES, NOUNS, draw_pairs
from hyperscale.utils.validation import suggestion

_DIGITS = 7  # of a needle's number


@dataclass(frozen=True)
class Question(ABC):
    """One problem before its text is made as long as it is to be.

    Attributes:
        key: Names the problem: what draws its text.
        fields: What the task's template may name, besides ``text``.
        target: What the answer must contain, all of it.
    """

    key: str
    fields: Mapping[str, str]
    target: tuple[str, ...]

    @abstractmethod
    def text(self, amount: int) -> str:
        """A text of so many units; a larger one has more tokens."""

    @property
    def most(self) -> int | None:
        """Most units that there are; None where there is no end."""
        return None

    def padded(self, amount: int, words: int) -> str:
        """The text of so many units and so many words of the next one."""
        return self.text(amount)

    def padding(self, amount: int) -> int:
        """Words of which `padded` can add some."""
        return 0


@dataclass(frozen=True)
class HiddenLines(Question):
    """Lines that are hidden among the sentences of a haystack.

    Attributes:
        lines: What is hidden, in the order in which it stands there.
        depths: Where each line stands, as a share of the sentences, ascending.
        sentences: The haystack.
    """

    lines: tuple[str, ...]
    depths: tuple[float, ...]
    sentences: Sentences

    def text(self, amount: int) -> str:
        """See `Question.text`; a unit is a sentence."""
        return self.padded(amount, 0)

    def padded(self, amount: int, words: int) -> str:
        """See `Question.padded`."""
        *sentences, more = islice(self._draw(), amount + 1)
        # From the last on, so that the places of those before stay.
        for line, depth in reversed(list(zip(self.lines, self.depths, strict=True))):
            sentences.insert(round(depth * amount), line)
        # As an excerpt, a text may begin within a sentence.
        return " ".join([_last_words(more, words), *sentences] if words else sentences)

    def padding(self, amount: int) -> int:
        """See `Question.padding`."""
        return len(_words(next(islice(self._draw(), amount, None)))) - 1

    def _draw(self) -> Iterator[str]:
        return self.sentences(Random(f"{self.key}-haystack"))


def _words(sentence: str) -> list[str]:
    """The words of a sentence; of writing without spaces its characters."""
    return sentence.split(" ") if " " in sentence else list(sentence)


def _last_words(sentence: str, count: int) -> str:
    return (" " if " " in sentence else "").join(_words(sentence)[-count:])


@dataclass(frozen=True)
class WordList(Question):
    """A numbered list of words, of which a few come up much more often than the others.

    Attributes:
        common: The words that come up often.
        rare: The others; a text has the first of them.
        common_times: How often a common word comes up.
        rare_times: How often another one does.
    """

    common: tuple[str, ...]
    rare: tuple[str, ...]
    common_times: int
    rare_times: int

    @property
    def most(self) -> int:
        """See `Question.most`."""
        return len(self.rare) * self.rare_times

    def text(self, amount: int) -> str:
        """See `Question.text`; a unit is a place of the list beyond those of the common words."""
        rare = [word for word in self.rare for _ in range(self.rare_times)][:amount]
        words = [*self.common * self.common_times, *rare]
        Random(f"{self.key}-order").shuffle(words)
        return "\n".join(f"{place}. {word}" for place, word in enumerate(words, start=1))


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of question, with its parameters.

    Attributes:
        has_haystack: Whether it hides something in a haystack, at a depth.
    """

    has_haystack: ClassVar[bool] = True

    @abstractmethod
    def draw(self, key: str, depth: float, sentences: Sentences) -> Question:
        """The question of a name.

        Args:
            key: The name, which draws all of it.
            depth: Where in the text it is hidden, from 0 to 1.
            sentences: The haystack.
        """

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """The kind with other parameters.

        Raises:
            TaskError: It has no such parameter, or the value is no whole number from 1 up.
        """
        changes = {}
        own = [field.name for field in fields(self)]
        for name, value in values.items():
            if name not in own:
                known = [*own, *self.shared]
                raise TaskError(
                    f"{task} has no parameter {name!r}{suggestion(name, known)}; it has: {', '.join(known)}"
                )
            if not str(value).isdecimal() or not 1 <= int(value) <= self.largest:
                raise TaskError(f"{name} of {task} is a whole number from 1 to {self.largest}, not {value!r}")
            changes[name] = int(value)
        return type(self)(**{**self.__dict__, **changes})

    @property
    def shared(self) -> tuple[str, ...]:
        """Parameters that kinds have in common; those of a haystack only where there is one."""
        return (*(("haystack", "depth") if self.has_haystack else ()), "seed", "problems")

    @property
    def largest(self) -> int:
        """The largest value that makes sense of any parameter."""
        return 64


@dataclass(frozen=True)
class Needles(Kind):
    """Numbers of things, one thing of which is asked about (RULER's needle in a haystack).

    Attributes:
        keys: Things with numbers; the first is asked about, the others distract.
        values: Numbers of each thing.
    """

    keys: int = 1
    values: int = 1

    def draw(self, key: str, depth: float, sentences: Sentences) -> Question:
        """See `Kind.draw`; what is asked about stands at ``depth``, its further numbers and the others anywhere."""
        rng = Random(key)
        things = draw_pairs(rng, self.keys)
        numbers = rng.sample(range(10 ** (_DIGITS - 1), 10**_DIGITS), self.keys * self.values)
        needles = []
        for place, number in enumerate(numbers):
            thing = things[place // self.values]
            where = depth if place == 0 else rng.random()
            needles.append((where, f"The secret number of {thing} is {number}."))
        needles.sort()
        return HiddenLines(
            key,
            {"key": things[0], "count": str(self.values)},
            tuple(str(number) for number in numbers[: self.values]),
            tuple(line for _, line in needles),
            tuple(where for where, _ in needles),
            sentences,
        )


@dataclass(frozen=True)
class Variables(Kind):
    """Variables that get their value from each other; all with one value are asked for (RULER's variable tracking).

    Attributes:
        hops: Assignments from one variable to the next.
        chains: Chains of variables, each with a value of its own; the first is asked about, the others distract.
    """

    hops: int = 4
    chains: int = 1

    def draw(self, key: str, depth: float, sentences: Sentences) -> Question:
        """See `Kind.draw`; a chain's first variable stands before ``depth``, the others behind it, in their order."""
        rng = Random(key)
        count_of_names = self.chains * (self.hops + 1)
        names = [f"{name.upper()}{number}" for name, number in _draw_names(rng, count_of_names)]
        values = rng.sample(range(10_000, 100_000), self.chains)
        lines = []
        for chain, value in enumerate(values):
            own = names[chain * (self.hops + 1) : (chain + 1) * (self.hops + 1)]
            statements = [f"VAR {own[0]} = {value}."]
            statements += [f"VAR {name} = VAR {before}." for before, name in pairwise(own)]
            # Anywhere, but each behind the one that it refers to.
            places = [depth * rng.random(), *sorted(depth + (1 - depth) * rng.random() for _ in own[1:])]
            lines += list(zip(places, statements, strict=True))
        lines.sort(key=lambda line: line[0])
        return HiddenLines(
            key,
            {"value": str(values[0]), "count": str(self.hops + 1)},
            tuple(names[: self.hops + 1]),
            tuple(line for _, line in lines),
            tuple(where for where, _ in lines),
            sentences,
        )


@dataclass(frozen=True)
class CommonWords(Kind):
    """A list in which a few words come up often (RULER's common words extraction).

    Attributes:
        common: Words that come up often, all asked for.
        common_times: How often each does.
        rare_times: How often each of the others does.
    """

    has_haystack: ClassVar[bool] = False

    common: int = 10
    common_times: int = 30
    rare_times: int = 3

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """See `Kind.with_parameters`; a common word comes up more often than a rare one."""
        kind = super().with_parameters(values, task)
        if kind.common_times <= kind.rare_times:
            raise TaskError(
                f"common_times of {task} is {kind.common_times} and rare_times {kind.rare_times}: what is asked for "
                "has to come up more often than the other words"
            )
        return kind

    def draw(self, key: str, depth: float, sentences: Sentences) -> Question:
        """See `Kind.draw`; nothing is hidden at a depth here."""
        words = draw_pairs(Random(key), len(ADJECTIVES) * len(NOUNS))
        common = tuple(words[: self.common])
        fields = {"count": str(self.common), "times": str(self.common_times)}
        rare = tuple(words[self.common :])
        return WordList(key, fields, common, common, rare, self.common_times, self.rare_times)


def _draw_names(rng: Random, amount: int) -> list[tuple[str, int]]:
    """Different nouns with a number."""
    nouns = rng.sample([noun for noun in NOUNS if noun.isalpha()], min(amount, len(NOUNS)))
    return [(nouns[place % len(nouns)], place // len(nouns) + 1) for place in range(amount)]


KINDS: dict[str, Kind] = {
    "niah_single": Needles(),
    "niah_multikey": Needles(keys=4),
    "niah_multivalue": Needles(values=4),
    "vt": Variables(),
    "cwe": CommonWords(),
}
"""Kinds by the names that task files use, with their usual parameters."""
