"""One chain in flight: what it has, what is fed to it next, and when it ends, branches or goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

from hyperscale.engines.base import Branch, Chain, Request
from hyperscale.engines.detokenize import Decoder
from hyperscale.engines.steering import Steer
from hyperscale.kv.ledger import Ledger
from hyperscale.kv.snapshot import Snapshot

Finish = Literal["stop", "length"]


@dataclass
class Live:
    """A chain in flight, or the branch of one.

    Attributes:
        request: As asked for.
        ledger: Its costs.
        started: When it was admitted, on `perf_counter`.
        limit: Most tokens it may have.
        steer: Forced ends of thinking, or None.
        ids: Generated ids.
        greedy: Whether every forced token was the most probable one.
        pending: Ids to insert before any more are drawn.
        extensions: How many ends of thinking have been replaced.
        thinking: Whether the thinking is open.
        branches: Finished branches.
        parent: The chain that this is a branch of.
        kept: The parent's cache and state; None if it ends here.
    """

    request: Request
    ledger: Ledger
    started: float
    limit: int
    steer: Steer | None = None
    ids: list[int] = field(default_factory=list)
    greedy: bool = True
    pending: tuple[int, ...] = ()
    extensions: int = 0
    thinking: bool = True
    branches: list[Branch] = field(default_factory=list)
    parent: Live | None = None
    kept: Snapshot | None = None

    @property
    def given(self) -> int:
        """The next token if it is not to be drawn, else -1."""
        if self.request.forced:
            return self.request.forced[len(self.ids)]
        return self.pending[0] if self.pending else -1

    def take(self, token: int, read: int, held: int, logprob: float, ends: frozenset[int]) -> int:
        """Book the token of a step.

        Args:
            token: The token that was given or drawn.
            read: Entries that the step read, as `Ledger.token` takes them.
            held: Entries that lived in it.
            logprob: The token's log-probability.
            ends: Ids that end a sequence.

        Returns:
            The token that the chain has got: another one if an end of thinking was replaced.
        """
        inserted = bool(self.pending)
        if inserted:
            self.pending = self.pending[1:]
        elif self.steer and self._extends() and (token == self.steer.end or token in ends):
            self.extensions += 1
            token, self.pending, inserted = self.steer.word[0], self.steer.word[1:], True
        if self.steer and token == self.steer.end:
            self.thinking = False
        self.ids.append(token)
        self.ledger.count_token(read, held, None if inserted else logprob)
        return token

    def reason(self, ends: frozenset[int], decoder: Decoder) -> Finish | None:
        """Why the chain or branch ends with its last token, if it does."""
        if not self.request.forced and (self.ids[-1] in ends or decoder.stopped(self.ids)):
            return "stop"
        return "length" if len(self.ids) == self.limit else None

    def _extends(self) -> bool:
        """Whether an end of thinking would be replaced now."""
        return self.steer is not None and self.thinking and self.extensions < self.steer.extend

    def answers_here(self) -> bool:
        """Whether a branch has to start here."""
        if self.steer is None or not self.steer.answer or self.parent is not None:
            return False
        return len(self.ids) == self.limit or len(self.ids) in self.request.checkpoints

    def branch(self, kept: Snapshot | None) -> Live:
        """The branch that answers here: it shares the past and has a future of its own."""
        assert self.steer is not None, "no steering, no branch"
        close = (self.steer.end,) if self.thinking else ()
        return replace(
            self,
            ledger=self.ledger.fork(),
            started=perf_counter(),
            limit=len(self.ids) + len(close) + self.steer.answer,
            ids=list(self.ids),
            pending=close,
            extensions=self.steer.extend,  # the thinking is over: nothing is replaced any more
            branches=[],
            parent=self,
            kept=kept,
        )

    def rejoin(self, finish: Finish, decoder: Decoder) -> Live:
        """End this branch; returns the chain that it is a branch of."""
        assert self.parent is not None, "not a branch"
        seconds = perf_counter() - self.started
        text, at = decoder.text(self.ids), len(self.parent.ids)
        branch = Branch(
            at=at,
            token_ids=tuple(self.ids[at:]),
            text=text[decoder.chars(self.ids[:at], text) :],
            finish=finish,
            logprob=self.ledger.logprob,
            inserted=self.ledger.inserted,
            kv_reads=self.ledger.kv_reads,
            peak_kv=self.ledger.peak_kv,
            seconds=seconds,
        )
        self.parent.branches.append(branch)
        self.parent.started += seconds
        return self.parent

    def finished(self, finish: Finish, decoder: Decoder) -> Chain:
        """The chain as it is handed out."""
        text = decoder.text(self.ids)
        return Chain(
            problem=self.request.problem,
            chain=self.request.chain,
            prompt_tokens=len(self.request.prompt_ids),
            token_ids=tuple(self.ids),
            text=text,
            finish=finish,
            logprob=self.ledger.logprob,
            trace=self.ledger.trace(lambda tokens: decoder.chars(self.ids[:tokens], text)),
            seconds=perf_counter() - self.started,
            greedy=self.greedy,
            branches=tuple(self.branches),
        )
