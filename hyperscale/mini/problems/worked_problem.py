"""A generated problem with a chain of thought, and the split that keeps test problems out of the training data."""

import zlib
from array import array
from dataclasses import dataclass, field
from typing import Any

from hyperscale.mini.vocab import ASSISTANT, END, END_THINK, ID, THINK, USER

#: One problem in this many is for testing.
TEST_SHARE = 16


@dataclass(frozen=True)
class WorkedProblem:
    """A problem with a chain of thought that leads to its answer.

    Attributes:
        prompt: Ids of the problem's text.
        chain: Ids of the thinking.
        reply: Ids of the text after the thinking.
        answer: The expected answer as text.
        level: Difficulty, from 1.
        tests: Hidden tests of a program, else empty.
    """

    prompt: list[int]
    chain: list[int]
    reply: list[int]
    answer: str
    level: int
    tests: list[dict[str, Any]] = field(default_factory=list)

    def ids(self) -> tuple[list[int], int]:
        """Token ids of the problem, its chain and its reply in the chat format, and how many of them are the prompt."""
        head = [ID[USER], *self.prompt, ID[ASSISTANT], ID[THINK]]
        return [*head, *self.chain, ID[END_THINK], *self.reply, ID[END]], len(head)


def is_test(prompt: list[int]) -> bool:
    """Whether a problem belongs to the test split: decided by a hash of its prompt alone."""
    return zlib.crc32(array("H", prompt).tobytes()) % TEST_SHARE == 0
