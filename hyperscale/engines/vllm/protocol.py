"""The plain data that the scheduler and its workers send each other about a request's superblocks and costs.

Nothing here needs vLLM. `hyperscale.engines.vllm.step_messages` wraps it in vLLM's own message classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

NEVER = 2**31 - 1
"""Expiry of an entry that every later query sees: the largest int32, above any position."""


def ceil_div(a: int, b: int) -> int:
    """The quotient of two integers, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class RequestParams:
    """What is known of a request when it arrives, and never changes.

    Attributes:
        prompt_tokens: P, tokens of its prompt.
        L: Most tokens that it generates.
        noise_key: Signed 64-bit key of the noise, for methods that draw.
    """

    prompt_tokens: int
    L: int
    noise_key: int = 0


@dataclass(frozen=True)
class SuperblockUpdate:
    """Scheduler to workers: how the superblocks of one request have changed.

    A worker shortens its table of the request to ``num_kept`` superblocks and appends ``new_blocks``.

    Attributes:
        request: Its id.
        generation: Counts the request's admissions. A higher one than before means that it was preempted and starts
            again from nothing.
        num_kept: How many of the superblocks that the worker knows of still belong to the request, from the first on.
        new_blocks: Block ids that follow them.
        params: See `RequestParams`.
    """

    request: str
    generation: int
    num_kept: int
    new_blocks: tuple[int, ...]
    params: RequestParams


@dataclass(frozen=True)
class RequestReport:
    """Workers to scheduler: what one request used in a step.

    Attributes:
        generation: See `SuperblockUpdate`; a report of an earlier generation is out of date.
        computed_tokens: Tokens of the sequence that have been processed, this step included.
        pages: Single-head pages that the request uses on this worker.
        live_entries: Live entries, summed over this worker's layers and KV heads, at each of the last positions before
            ``computed_tokens``; none for positions in front of the prompt's last.
        read_entries: Entries read at each of the same positions, likewise; None if all that lived.
        prompt_part: Of the step, the positions within the prompt, first and last (exclusive), and the entries that
            their queries read, likewise; None where there are none, or nobody counts.
    """

    generation: int
    computed_tokens: int
    pages: int
    live_entries: tuple[int, ...]
    read_entries: tuple[int, ...] | None = None
    prompt_part: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class DecodeColumns:
    """What the requests of a step used that each decoded one token: see `RequestReport`, a number a request.

    Attributes:
        pages: Pages of each.
        live_entries: Entries live at each one's position.
        read_entries: Entries read there; None if all that lived.
    """

    pages: tuple[int, ...]
    live_entries: tuple[int, ...]
    read_entries: tuple[int, ...] | None


class DecodeReports(Mapping[str, RequestReport]):
    """The reports of a step in which every request decoded one token, in columns: cheap to make and to add up.

    Attributes:
        requests: Ids of the requests.
        generations: Of each, see `SuperblockUpdate`.
        computed_tokens: Of each, see `RequestReport`.
    """

    def __init__(
        self,
        requests: tuple[str, ...],
        generations: tuple[int, ...],
        computed_tokens: tuple[int, ...],
        columns: DecodeColumns | Callable[[], DecodeColumns],
    ) -> None:
        """Take the columns, or the function that waits for them."""
        self.requests, self.generations, self.computed_tokens = requests, generations, computed_tokens
        self._columns = columns

    @property
    def columns(self) -> DecodeColumns:
        """What each request used."""
        if callable(self._columns):
            self._columns = self._columns()
        return self._columns

    def precedes(self, other: "DecodeReports") -> bool:
        """Whether the other one is of the same requests' next tokens."""
        # A later step of the same admissions is at least one token further in each, so the sum says it of all.
        return (
            self.requests == other.requests
            and self.generations == other.generations
            and sum(other.computed_tokens) - sum(self.computed_tokens) == len(self.requests)
        )

    def __getitem__(self, request: str) -> RequestReport:
        """One request's report."""
        try:
            index = self.requests.index(request)
        except ValueError:
            raise KeyError(request) from None
        columns = self.columns
        return RequestReport(
            self.generations[index],
            self.computed_tokens[index],
            columns.pages[index],
            (columns.live_entries[index],),
            None if columns.read_entries is None else (columns.read_entries[index],),
        )

    def __iter__(self) -> Iterator[str]:
        """Ids of the requests."""
        return iter(self.requests)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.requests)

    def __reduce__(self) -> tuple[type["DecodeReports"], tuple[object, ...]]:
        """Pickle the columns, never the function that waits for them: it holds a CUDA event of this process."""
        return DecodeReports, (self.requests, self.generations, self.computed_tokens, self.columns)
