"""Keeps the tokens and costs of a chain while it is generated, and decides when it ends, branches or goes on.

An engine draws tokens; a `LiveChain` takes each and says what the chain has got. It replaces an end of thinking that
steering forbids, closes the thinking of a branch, and knows which token comes next where none is to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isnan
from time import perf_counter
from typing import Literal

from hyperscale.engines.base import Branch, Chain, Request, not_a_number
from hyperscale.engines.detokenize import Decoder
from hyperscale.engines.steering import TokenSteering
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.snapshot import Snapshot
from hyperscale.models import thinking
from hyperscale.models.thinking import Marks

Finish = Literal["stop", "length"]


@dataclass
class LiveChain:
    """A chain in flight, or the branch of one.

    Attributes:
        request: The request that it answers.
        ledger: Its costs.
        start_time: When it was admitted, on `perf_counter`.
        limit: Most tokens that it may have.
        steering: Forced ends of thinking, or None.
        ids: Generated ids.
        greedy: Whether every forced token was the most probable one.
        pending_ids: Ids to insert before any more are drawn.
        extensions: How many ends of thinking have been replaced.
        marks: Marks of the thinking that is open, or None.
        has_thought: Whether there was a thinking, open or not.
        branches: Finished branches.
        kept: See `Chain`.
        parent: The chain that this is a branch of.
        parent_snapshot: Cache and state of the parent, which goes on from there after this branch; None if the parent
            ends with it.
    """

    request: Request
    ledger: Ledger
    start_time: float
    limit: int
    steering: TokenSteering | None = None
    ids: list[int] = field(default_factory=list)
    greedy: bool = True
    pending_ids: tuple[int, ...] = ()
    extensions: int = 0
    marks: Marks | None = None
    has_thought: bool = False
    branches: list[Branch] = field(default_factory=list)
    kept: tuple[tuple[int, ...], ...] = ()
    parent: LiveChain | None = None
    parent_snapshot: Snapshot | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            self.marks = thinking.find(self.request.opened)
            self.has_thought = self.marks is not None

    @property
    def forced_id(self) -> int:
        """The next token if it is not to be drawn, else -1."""
        if self.request.forced_ids:
            return self.request.forced_ids[len(self.ids)]
        return self.pending_ids[0] if self.pending_ids else -1

    def add_token(self, token: int, read: int, held: int, logprob: float, end_ids: frozenset[int]) -> int:
        """Append the token of a step and count its costs.

        Args:
            token: The token that was forced or drawn.
            read: Entries that the step read, as `Ledger.count_token` takes them.
            held: Entries that lived in it.
            logprob: The token's log-probability.
            end_ids: Ids that end a sequence.

        Returns:
            The token that the chain has got: another one if an end of thinking was replaced.

        Raises:
            EngineError: The log-probability is not a number.
        """
        if isnan(logprob):
            raise not_a_number(self.request, len(self.ids))
        is_inserted = bool(self.pending_ids)
        if is_inserted:
            self.pending_ids = self.pending_ids[1:]
        elif self.steering and self.may_extend() and (token == self.steering.end_id(self.marks) or token in end_ids):
            # The continuation word stands where the thinking, or the whole sequence, would have ended.
            self.extensions += 1
            token, *word_tail = self.steering.word_ids
            self.pending_ids, is_inserted = tuple(word_tail), True
        self.ids.append(token)
        if self.steering and self.steering.extend and self.steering.may_have_turned(self.ids):
            self._turn(self.steering)
        self.ledger.count_token(read, held, None if is_inserted else logprob)
        return token

    def may_extend(self) -> bool:
        """Whether an end of thinking would be replaced now."""
        is_over = self.marks is None and self.has_thought
        return self.steering is not None and not is_over and self.extensions < self.steering.extend

    def finish_reason(self, end_ids: frozenset[int], decoder: Decoder) -> Finish | None:
        """Why the chain or branch ends with its last token, if it does."""
        # Forced tokens are all scored, whatever they are.
        if not self.request.forced_ids and (
            self.ids[-1] in end_ids or decoder.hits_stop(self.ids, self.request.opened)
        ):
            return "stop"
        return "length" if len(self.ids) == self.limit else None

    def _turn(self, steering: TokenSteering) -> None:
        """Look whether the thinking has been opened or closed, and open it again if it was to go on."""
        before = self.marks
        self.marks, self.has_thought = steering.open_marks(self.request, self.ids)
        # A mark of several tokens cannot be replaced by its last one: it stays.
        may_extend = not self.pending_ids and self.extensions < steering.extend
        if before is not None and self.marks is None and may_extend:
            self.extensions += 1
            self.pending_ids = steering.reopening_ids(before)

    def must_branch(self) -> bool:
        """Whether a branch has to start here: at each cut, L included, unless this is a branch itself."""
        if self.steering is None or not self.steering.answer or self.parent is not None:
            return False
        return len(self.ids) == self.limit or len(self.ids) in self.request.cuts

    def start_branch(self, parent_snapshot: Snapshot | None) -> LiveChain:
        """The branch that answers here: it shares the past and goes on by itself."""
        assert self.steering is not None, "no steering, no branch"
        close = self.steering.answer_ids(self.request, self.ids)  # in front of the answer
        room = self.steering.branch_tokens(self.request)
        return replace(
            self,
            ledger=self.ledger.fork(),
            start_time=perf_counter(),
            limit=len(self.ids) + min(len(close) + self.steering.answer, room),
            ids=list(self.ids),
            pending_ids=close,
            extensions=self.steering.extend,  # the thinking is over: nothing is replaced any more
            branches=[],
            parent=self,
            parent_snapshot=parent_snapshot,
        )

    def end_branch(self, finish: Finish, decoder: Decoder) -> LiveChain:
        """End this branch and record it in the chain that it is a branch of, which is returned."""
        assert self.parent is not None, "not a branch"
        seconds = perf_counter() - self.start_time
        # The parent has waited: the first `at` tokens are still all of its own.
        text, at = decoder.text(self.ids, self.request.opened), len(self.parent.ids)
        branch = Branch(
            at=at,
            token_ids=tuple(self.ids[at:]),
            text=text[decoder.count_chars(self.ids[:at], text) :],
            finish=finish,
            logprob=self.ledger.logprob,
            inserted=self.ledger.inserted,
            kv_reads=self.ledger.kv_reads,
            peak_kv=self.ledger.peak_kv,
            seconds=seconds,
        )
        self.parent.branches.append(branch)
        self.parent.start_time += seconds  # the branch's time is not the chain's
        return self.parent

    def finish(self, reason: Finish, decoder: Decoder) -> Chain:
        """The chain as it leaves the engine."""
        text = decoder.text(self.ids, self.request.opened)
        return Chain(
            problem=self.request.problem,
            chain=self.request.chain,
            prompt_tokens=len(self.request.prompt_ids),
            token_ids=tuple(self.ids),
            text=text,
            finish=reason,
            logprob=self.ledger.logprob,
            trace=self.ledger.trace(lambda tokens: decoder.count_chars(self.ids[:tokens], text)),
            seconds=perf_counter() - self.start_time,
            greedy=self.greedy,
            branches=tuple(self.branches),
            kept=self.kept,
        )
