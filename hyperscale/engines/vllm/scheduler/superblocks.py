"""The scheduler's book of superblocks: who holds which, how many a step can need, what goes back to the pool."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import Demand, Grant, ceil_div


class Block(Protocol):
    """A block of vLLM's pool."""

    block_id: int


class Pool(Protocol):
    """The part of vLLM's ``BlockPool`` that is used here."""

    def get_new_blocks(self, num_blocks: int) -> list[Any]:
        """Take blocks."""

    def free_blocks(self, ordered_blocks: Any) -> None:
        """Give blocks back."""

    def get_num_free_blocks(self) -> int:
        """Blocks to be had."""


@dataclass
class Holding:
    """The superblocks of one running request.

    Attributes:
        demand: As given at arrival.
        generation: See `Grant`.
        blocks: In the order in which the worker uses them; the first one's id is the request's key on the worker.
        pages: High-water mark of single-head pages in use, when ``covered`` tokens had been processed.
        covered: Tokens that the last report covers.
        scheduled: Tokens handed to the workers, steps in flight included.
        reserved: Superblocks that admission reckons with.
        known: Superblocks that the workers know of.
        fresh: Whether the workers have not heard of this generation.
    """

    demand: Demand
    generation: int
    reserved: int
    blocks: list[Any] = field(default_factory=list)
    pages: int = 0
    covered: int = 0
    scheduled: int = 0
    known: int = 0
    fresh: bool = True


class Book:
    """All holdings of one engine.

    The bound: a list takes a new page only to append to a full one, so m more tokens take at most ceil(m / N) pages of
    it, whatever the rule evicts. A request whose pages were last reported as p and that has m tokens on top, those in
    flight included, therefore never needs more than ceil((p + lists * ceil(m / N)) / lists) superblocks. That is what
    it is given before a step, and what it does not turn out to need is taken back after it.
    """

    def __init__(self, lists: int, page_tokens: int, pool: Pool, options: Options, chunk: int) -> None:
        """An empty book.

        Args:
            lists: Lists of a request on one worker: its layers times its KV heads.
            page_tokens: N.
            pool: Where superblocks come from.
            options: The engine's options.
            chunk: Most tokens of a step, of all requests together.
        """
        self.lists, self.page_tokens, self.pool = lists, page_tokens, pool
        self._options, self._chunk = options, chunk
        self.held: dict[str, Holding] = {}
        self._demands: dict[str, Demand] = {}
        self._generations: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._gone: list[str] = []

    # -- arrivals and departures ------------------------------------------------------------------------------------

    def announce(self, request: str, demand: Demand) -> None:
        """A request has arrived; it holds nothing yet."""
        self._demands[request] = demand

    def forget(self, request: str) -> None:
        """A request has finished and will not come back."""
        self._demands.pop(request, None)
        self._generations.pop(request, None)

    def drop(self, request: str) -> list[Any]:
        """Take all superblocks from a request that finished or is preempted; the caller returns them to the pool."""
        holding = self.held.pop(request, None)
        if holding is None:
            return []
        self._changed.pop(request, None)
        self._gone.append(request)
        return holding.blocks

    # -- before a step ----------------------------------------------------------------------------------------------

    def needed(self, holding: Holding | None, tokens: int) -> int:
        """Superblocks with which a request cannot run out while ``tokens`` tokens are processed: the bound above."""
        pages, covered = (holding.pages, holding.covered) if holding else (0, 0)
        growth = ceil_div(max(tokens - covered, 0), self.page_tokens)
        return max(ceil_div(pages + self.lists * growth, self.lists), 1)

    def lacking(self, request: str, tokens: int) -> int:
        """Superblocks to add before a request can go on to ``tokens`` tokens."""
        holding = self.held.get(request)
        return max(self.needed(holding, tokens) - (len(holding.blocks) if holding else 0), 0)

    def grow(self, request: str, tokens: int) -> list[Any]:
        """Add them; returns the new superblocks."""
        holding = self.held.get(request)
        if holding is None:
            generation = self._generations[request] = self._generations.get(request, 0) + 1
            demand = self._demands[request]
            holding = self.held[request] = Holding(demand, generation, self._reservation(demand))
        new = self.pool.get_new_blocks(max(self.needed(holding, tokens) - len(holding.blocks), 0))
        holding.blocks += new
        holding.scheduled = max(holding.scheduled, tokens)
        if new:
            self._changed[request] = None
        return new

    def admission(self, request: str) -> int:
        """Superblocks that should be free for a request to start: a guess that only costs preemptions where it fails.

        Its own reservation, what the running requests have reserved and not taken yet, and room for the chunks of
        prompts that are waiting, which are dense until the step that processes them has been reported.
        """
        demand = self._demands[request]
        own = self._reservation(demand)
        if not self.held:  # a request alone must start, whatever it is expected to need
            return min(own, self.pool.get_num_free_blocks())
        promised = sum(max(holding.reserved - len(holding.blocks), 0) for holding in self.held.values())
        waiting = sum(max(holding.demand.prompt - holding.scheduled, 0) for holding in self.held.values())
        return own + promised + ceil_div(min(waiting + demand.prompt, self._chunk), self.page_tokens)

    def _reservation(self, demand: Demand) -> int:
        entries = self._options.expected(demand.prompt, demand.new_tokens)
        # Half of a list's last page is empty on average; one superblock is the head start that every step gets.
        return int((entries + self.page_tokens / 2) // self.page_tokens) + 2

    def grants(self) -> tuple[list[Grant], list[str]]:
        """News since the last call: changed holdings, and requests that hold nothing any more."""
        news = []
        for request in self._changed:
            holding = self.held[request]
            added = tuple(block.block_id for block in holding.blocks[holding.known :])
            news.append(Grant(request, holding.generation, holding.known, added, holding.demand))
            holding.known, holding.fresh = len(holding.blocks), False
        gone = self._gone
        self._changed, self._gone = {}, []
        return news, gone

    # -- after a step -----------------------------------------------------------------------------------------------

    def report(self, request: str, generation: int, pages: int, covered: int) -> None:
        """A worker has told what a request uses; superblocks that no step in flight can need go back to the pool.

        Args:
            request: Its id; one that holds nothing, or a generation that is over, is ignored.
            generation: See `Grant`.
            pages: High-water mark of the request's pages, the largest of all workers.
            covered: Tokens processed so far.
        """
        holding = self.held.get(request)
        if holding is None or holding.generation != generation or covered < holding.covered:
            return
        holding.pages, holding.covered = pages, covered
        # One token more than is scheduled: the next step would take that superblock at once.
        keep = self.needed(holding, max(holding.scheduled, covered) + 1)
        if keep < len(holding.blocks):
            surplus: Sequence[Any] = holding.blocks[keep:]
            del holding.blocks[keep:]
            holding.known = min(holding.known, keep)
            self._changed[request] = None
            self.pool.free_blocks(reversed(surplus))
