"""Decides admission and hands out superblocks: how many a request can need, and which go back to vLLM's pool.

A superblock is one of vLLM's blocks: a page of N tokens for each list of a worker (a list is what one KV head of one
layer keeps of one request). The scheduler counts superblocks; which list uses which page only the workers know.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from hyperscale.engines.vllm.options import Options
from hyperscale.engines.vllm.protocol import RequestParams, SuperblockUpdate, ceil_div
from hyperscale.engines.vllm.scheduler.holdings import HeldShares


class BlockPool(Protocol):
    """The part of vLLM's ``BlockPool`` that is used here."""

    def get_new_blocks(self, num_blocks: int) -> list[Any]:
        """Take blocks, each with an integer ``block_id``."""

    def free_blocks(self, ordered_blocks: Any) -> None:
        """Give blocks back."""

    def get_num_free_blocks(self) -> int:
        """Number of blocks that can be taken."""


@dataclass
class RequestSuperblocks:
    """The superblocks of one running request.

    Attributes:
        params: See `RequestParams`.
        generation: See `SuperblockUpdate`.
        expected: Superblocks that the options let expect at the request's end.
        expected_decoding: The same once its prompt is done.
        blocks: In the order in which workers use them. The id of the first one names the request on the workers.
        pages: Single-head pages in use after ``computed_tokens`` tokens, by the last report.
        computed_tokens: Tokens that the last report covers.
        scheduled_tokens: Tokens that have been handed to the workers, steps in flight included.
        num_sent: Superblocks that the workers have been told of.
        covered_tokens: As many tokens at least as its superblocks suffice for, or 0.
        share: What it held by the last report, as a share of what was to be expected then; None if that is not known.
    """

    params: RequestParams
    generation: int
    expected: float
    expected_decoding: float
    blocks: list[Any] = field(default_factory=list)
    pages: int = 0
    computed_tokens: int = 0
    scheduled_tokens: int = 0
    num_sent: int = 0
    covered_tokens: int = 0
    share: float | None = None


class SuperblockAllocator:
    """Superblocks of all running requests of one engine.

    The bound: a list takes a new page only to append to a full one, so m more tokens take at most ceil(m / N) pages of
    it, whatever the method evicts. Let p be a request's pages by its last report and m the tokens since then, those in
    flight included. It never needs more than ceil((p + num_lists * ceil(m / N)) / num_lists) superblocks. It is given
    that many before a step; after the step it returns those that it turned out not to need.

    Attributes:
        num_lists: Lists of a request on one worker: its layers times its KV heads.
        page_tokens: N.
        pool: Where superblocks come from.
        running: Request id to its superblocks.
        catch_up: Called before more superblocks are taken, so that reports that have come are known.
    """

    def __init__(self, num_lists: int, page_tokens: int, pool: BlockPool, options: Options, step_tokens: int) -> None:
        """An allocator without requests.

        Args:
            num_lists: See the class.
            page_tokens: N.
            pool: See the class.
            options: The engine's options.
            step_tokens: Most tokens of a step, of all requests together.
        """
        self.num_lists, self.page_tokens, self.pool = num_lists, page_tokens, pool
        self._options, self._step_tokens = options, step_tokens
        self.running: dict[str, RequestSuperblocks] = {}
        self.catch_up: Callable[[], None] = lambda: None
        self._params: dict[str, RequestParams] = {}
        # Outlives `release`: a preempted request comes back with a higher generation.
        self._generations: dict[str, int] = {}
        # What the workers have not been told yet. A dict without values is a set that keeps its order.
        self._changed: dict[str, None] = {}
        self._released_requests: list[str] = []
        self._shares = HeldShares()
        self._share_before: dict[str, float | None] = {}  # of requests that were preempted
        self._steps_overlap = False  # whether a step was handed out before the report of the one before came

    def use_options(self, options: Options) -> None:
        """Admit requests by these options from now on: those of the method that the next requests are for."""
        if options != self._options:
            assert not self.running, "arms change only when no request is running"
            self._options, self._shares = options, HeldShares()

    @property
    def reserves_all(self) -> bool:
        """Whether requests reserve all that they can ever hold, because they may not be preempted."""
        return self._options.hosted

    # -- arrivals and departures ------------------------------------------------------------------------------------

    def add_request(self, request_id: str, params: RequestParams) -> None:
        """A request has arrived and waits; it holds nothing yet."""
        self._params[request_id] = params

    def remove_request(self, request_id: str) -> None:
        """A request has finished and will not come back, as a preempted one would."""
        self._params.pop(request_id, None)
        self._generations.pop(request_id, None)
        self._share_before.pop(request_id, None)

    def release(self, request_id: str) -> list[Any]:
        """Take all superblocks from a request that finished or is preempted; the caller returns them to the pool."""
        holding = self.running.pop(request_id, None)
        if holding is None:
            return []
        # Workers must hear of it before the superblocks are used again: `take_updates` comes before the next step.
        self._changed.pop(request_id, None)
        self._released_requests.append(request_id)
        if request_id in self._params:  # it will come back
            self._shares.record_preemption()
            self._share_before[request_id] = holding.share
        else:
            self._shares.record_finish(holding.share)
        return holding.blocks

    # -- before a step ----------------------------------------------------------------------------------------------

    def upper_bound(self, holding: RequestSuperblocks | None, tokens: int) -> int:
        """Superblocks with which a request cannot run out before it has processed ``tokens`` tokens: see the class."""
        pages, computed_tokens = (holding.pages, holding.computed_tokens) if holding else (0, 0)
        # Each list may have a full last page, so every list is charged for the growth, rounded up.
        growth = ceil_div(max(tokens - computed_tokens, 0), self.page_tokens)
        # At least one: the id of the first superblock is the request's name on the workers.
        return max(ceil_div(pages + self.num_lists * growth, self.num_lists), 1)

    def count_missing(self, request_id: str, tokens: int) -> int:
        """Superblocks to add before a request can go on to ``tokens`` tokens."""
        holding = self.running.get(request_id)
        if holding is None:
            return self.upper_bound(None, tokens)
        if tokens <= holding.covered_tokens:  # as in nearly every step
            return 0
        if missing := self._count_missing(holding, tokens):
            # What it used and others gave back since may be known already.
            self.catch_up()
            missing = self._count_missing(holding, tokens)
        return missing

    def _count_missing(self, holding: RequestSuperblocks, tokens: int) -> int:
        missing = self.upper_bound(holding, tokens) - len(holding.blocks)
        if missing <= 0:
            # The bound is the same up to the last token for which lists are charged as many pages.
            growth = ceil_div(max(tokens - holding.computed_tokens, 0), self.page_tokens)
            holding.covered_tokens = holding.computed_tokens + growth * self.page_tokens
        return max(missing, 0)

    def allocate(self, request_id: str, tokens: int) -> list[Any]:
        """Add the missing superblocks; returns the new ones."""
        holding = self.running.get(request_id)
        if holding is None:  # it starts, or starts again after a preemption
            generation = self._generations[request_id] = self._generations.get(request_id, 0) + 1
            params = self._params[request_id]
            expected, decoding = self._expect(params), self._expect(params, decodes=True)
            holding = self.running[request_id] = RequestSuperblocks(params, generation, expected, decoding)
            holding.share = self._share_before.get(request_id)
        if holding.computed_tokens < holding.scheduled_tokens:
            self._steps_overlap = True
        holding.scheduled_tokens = max(holding.scheduled_tokens, tokens)
        if tokens <= holding.covered_tokens:
            return []
        # vLLM has asked `count_missing` before, and preempted others if the pool had too few.
        missing = self._count_missing(holding, tokens)
        if not missing:
            return []
        blocks = self.pool.get_new_blocks(missing)
        holding.blocks += blocks
        self._changed[request_id] = None
        return blocks

    def count_to_admit(self, request_id: str) -> int:
        """Superblocks that should be free before a request starts.

        This is a guess, not a bound: where it is too low, vLLM preempts a request, and nothing else goes wrong. Only of
        requests that may not be preempted it is a bound, see `Options.expected_entries`. It is the sum of what the
        request is expected to hold at its end, of what the running requests are expected to take until theirs, and of
        room for the chunks of prompts that are still to be processed. Such a chunk is dense until the step that
        processes it has been reported. Where verdicts decide what stays, what is expected is learned from the requests
        that run and have finished (`HeldShares`).
        """
        params, running = self._params[request_id], self.running.values()
        share, room, caution = 1.0, 1.0, 1.0
        if self._options.gated:
            share, room, caution = self._shares.estimate(held.share for held in running if held.share is not None)
        known = self._share_before.get(request_id) or share
        own, free = (
            self._reserve(self._expect(params) * known * room * caution, params),
            self.pool.get_num_free_blocks(),
        )
        if not self.running:  # a request alone must start, whatever it is expected to need
            return min(own, free)
        if own > free:  # whatever the others need
            return own
        outstanding, prompt_tokens = 0, params.prompt_tokens
        for held in running:
            final = self._expect_final(held, share, room) * caution
            outstanding += max(self._reserve(final, held.params) - len(held.blocks), 0)
            prompt_tokens += max(held.params.prompt_tokens - held.scheduled_tokens, 0)
        # Where steps overlap, two are dense before the first has been reported.
        chunk = min(prompt_tokens, self._step_tokens * (2 if self._steps_overlap else 1))
        return own + outstanding + ceil_div(chunk, self.page_tokens)

    def _expect_final(self, held: RequestSuperblocks, share: float, room: float) -> float:
        """Superblocks that a running request is expected to hold at its end.

        What it holds already is known; room for error is kept of what it is still to take.

        Args:
            held: The request.
            share: Its share of what the options let expect, if its own is not known.
            room: Factor on what is a guess.
        """
        if held.share is None or not self._options.gated:
            decodes = held.computed_tokens >= held.params.prompt_tokens
            return (held.expected_decoding if decodes else held.expected) * share * room
        growth = max(held.expected - self._expect_gated(held.computed_tokens), 0.0)
        return held.pages / self.num_lists + growth * held.share * room

    def _expect_gated(self, tokens: int) -> float:
        """Superblocks that verdicts let expect after so many tokens; half of a list's last page is empty on average."""
        return self._options.gated_entries(tokens) / self.page_tokens + 0.5

    def _expect(self, params: RequestParams, *, decodes: bool = False) -> float:
        """Superblocks that the options let expect at a request's end."""
        # Half of a list's last page is empty on average.
        return self._options.expected_entries(params.prompt_tokens, params.L, decodes=decodes) / self.page_tokens + 0.5

    def _reserve(self, expected: float, params: RequestParams) -> int:
        """Superblocks to keep for a request that is expected to hold so many at its end."""
        dense = (params.prompt_tokens + params.L) / self.page_tokens + 0.5
        return int(min(expected, dense)) + 2  # one is the head start that every step gets

    def take_updates(self) -> tuple[list[SuperblockUpdate], list[str]]:
        """Changes since the last call, for the workers: updates, and ids of requests that hold nothing any more."""
        updates = []
        for request_id in self._changed:
            holding = self.running[request_id]
            # Of superblocks that the workers know of, only the number that remains is sent.
            blocks = tuple(block.block_id for block in holding.blocks[holding.num_sent :])
            updates.append(SuperblockUpdate(request_id, holding.generation, holding.num_sent, blocks, holding.params))
            holding.num_sent = len(holding.blocks)
        released_requests = self._released_requests
        self._changed, self._released_requests = {}, []
        return updates, released_requests

    # -- after a step -----------------------------------------------------------------------------------------------

    def record_usage(self, request_id: str, generation: int, pages: int, computed_tokens: int) -> None:
        """Learn what a request uses; superblocks that no step in flight can need go back to the pool.

        Args:
            request_id: A request that holds nothing, or a generation that is over, is ignored.
            generation: See `SuperblockUpdate`.
            pages: The request's pages in use, the largest number of all workers.
            computed_tokens: Tokens processed so far. A report that is older than the last one is ignored.
        """
        holding = self.running.get(request_id)
        # With asynchronous scheduling a report may come after its request was released or admitted anew.
        if holding is None or holding.generation != generation or computed_tokens < holding.computed_tokens:
            return
        holding.pages, holding.computed_tokens, holding.covered_tokens = pages, computed_tokens, 0
        if self._options.gated and computed_tokens >= holding.params.prompt_tokens:
            holding.share = pages / self.num_lists / self._expect_gated(computed_tokens)
        # One token more than is scheduled: the next step would take that superblock at once.
        bound = self.upper_bound(holding, max(holding.scheduled_tokens, computed_tokens) + 1)
        if bound < len(holding.blocks):
            surplus = holding.blocks[bound:]
            del holding.blocks[bound:]
            # Workers may know of some of the surplus. The next update says how many remain (`num_kept`), and reaches
            # them before any step in which another request could have been given those superblocks.
            holding.num_sent = min(holding.num_sent, bound)
            self._changed[request_id] = None
            self.pool.free_blocks(reversed(surplus))
