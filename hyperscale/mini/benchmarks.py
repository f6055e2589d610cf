"""The built-in test sets: generated from fixed seeds, disjoint from all training data by a hash of the prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

from hyperscale.errors import TaskError
from hyperscale.mini.problems import aime, gpqa, lcb
from hyperscale.mini.problems.document import Document, is_test
from hyperscale.mini.vocab import decode

Generator = Callable[[Random, int | None], Document]
GENERATORS: dict[str, Generator] = {"aime": aime.generate, "gpqa": gpqa.generate, "lcb": lcb.generate}
LEVEL_COUNT = 5


@dataclass(frozen=True)
class Item:
    """One test problem.

    Attributes:
        id: Unique name, a function of kind, seed and place.
        prompt: The user message.
        answer: The expected answer: an integer, a letter, or the names of the two steps.
        tests: Hidden tests of a program (``input`` and ``output`` lists), else empty.
        level: Difficulty, 1 to 5; levels take turns, so any first n items are balanced.
    """

    id: str
    prompt: str
    answer: str
    tests: list[dict[str, Any]]
    level: int


def items(kind: str, n: int = 200, seed: int = 0) -> list[Item]:
    """The first ``n`` test problems of a benchmark.

    Args:
        kind: "aime", "gpqa" or "lcb".
        n: Number of problems; a smaller set is a prefix of a larger one.
        seed: Another seed gives another test set.

    Raises:
        TaskError: Unknown kind.
    """
    if kind not in GENERATORS:
        raise TaskError(f"no built-in benchmark '{kind}'; there are {', '.join(GENERATORS)}")
    found: list[Item] = []
    seen: set[str] = set()
    for draw in count():
        if len(found) == n:
            break
        # A generator of its own for each draw, and prompts come first in it: rewording a chain leaves the test set be.
        level = len(found) % LEVEL_COUNT + 1
        document = GENERATORS[kind](Random(f"hyperscale-{kind}-{seed}-{draw}"), level)
        prompt = decode(document.prompt)
        if is_test(document.prompt) and prompt not in seen:
            seen.add(prompt)
            found.append(Item(f"mini_{kind}-{seed}-{len(found)}", prompt, document.answer, document.tests, level))
    return found


def training_document(rng: Random, kind: str) -> Document:
    """A random document that is not in the test split."""
    while True:
        document = GENERATORS[kind](rng, None)
        if not is_test(document.prompt):
            return document
