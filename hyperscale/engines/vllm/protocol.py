"""What scheduler and workers tell each other: plain data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def ceil_div(a: int, b: int) -> int:
    """The quotient of two integers, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Demand:
    """What is known of a request when it arrives.

    Attributes:
        prompt: Tokens of its prompt.
        new_tokens: Most tokens it generates.
        key: Noise key, for the rule that draws.
    """

    prompt: int
    new_tokens: int
    key: int = 0


@dataclass(frozen=True)
class Grant:
    """News for the workers about one request's superblocks.

    Attributes:
        request: Its id.
        generation: Counts admissions: a higher one means that the request starts again from nothing.
        kept: How many of the superblocks that the worker knows of still belong to the request.
        added: Block ids that follow them.
        demand: As given at arrival.
    """

    request: str
    generation: int
    kept: int
    added: tuple[int, ...]
    demand: Demand


@dataclass(frozen=True)
class Ran:
    """What one request did in a step.

    Attributes:
        generation: See `Grant`.
        covered: Tokens processed so far.
        pages: High-water mark of its pages.
        lives: Live entries, summed over this worker's rows, at each of the last positions before ``covered``; none of
            positions in front of the prompt's last.
    """

    generation: int
    covered: int
    pages: int
    lives: tuple[int, ...]


NEVER = 2**31 - 1
