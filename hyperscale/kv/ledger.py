"""Counts what each chain reads and holds, in whole numbers, while it is generated."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

from hyperscale.kv.trace import KVTrace


@dataclass(frozen=True)
class _Cut:
    """What a ledger has counted when its chain had so many tokens; see `Ledger` for units."""

    tokens: int
    reads: int
    peak: int
    logprob: float
    inserted: int


class Ledger:
    """Reads, peak and log-probability of one chain.

    An engine calls `count_token` once for every generated token. Whenever the chain has reached a *cut*, a length that
    it may later be cut to, the counts so far are recorded. Counts are sums over layers and KV heads, and so stay exact:
    only `trace` and the properties divide by the number of rows.

    Attributes:
        logprob: Sum of the log-probabilities of the drawn tokens.
        inserted: Number of tokens that were not drawn.
        prefill_reads: Entries that the prompt's queries attended to, over all rows; None while nobody has told.
    """

    def __init__(self, rows: int, cuts: Sequence[int], prefill_reads: int | None = None) -> None:
        """Nothing counted yet but the prompt.

        Args:
            rows: Layers times KV heads of a layer.
            cuts: Lengths, in generated tokens, at which costs are recorded.
            prefill_reads: Entries that the prompt's queries attended to, over all rows; None where nobody can tell.
        """
        self._rows = rows
        self.prefill_reads, self._prefill_held = prefill_reads, 0
        self._pending = sorted(set(cuts), reverse=True)  # the next cut is the last of the list
        self._tokens = self._reads = self._peak = self.inserted = 0
        self.logprob = 0.0
        self._cuts: list[_Cut] = []

    @property
    def kv_reads(self) -> float:
        """Decode reads so far, in entries."""
        return self._reads / self._rows

    @property
    def peak_kv(self) -> float:
        """Largest number of live entries so far."""
        return self._peak / self._rows

    def fork(self) -> Self:
        """A ledger that has counted the same and counts on by itself."""
        other = copy(self)
        other._pending, other._cuts = list(self._pending), list(self._cuts)
        return other

    def count_token(self, read: int, held: int, logprob: float | None = 0.0) -> None:
        """Count one generated token, drawn from the logits of a step: the prefill for the first, else a decode step.

        Args:
            read: Entries that the step attended to, over all rows; the prefill's do not count.
            held: Entries that lived in it, over all rows.
            logprob: The token's log-probability; None if it was inserted, not drawn.
        """
        # The first token comes from the prefill, whose reads are no decode reads. What prefill leaves counts as held.
        if self._tokens:
            self._reads += read
        else:
            self._prefill_held = held
        self._peak = max(self._peak, held)
        self._tokens += 1
        if logprob is None:
            self.inserted += 1
        else:
            self.logprob += logprob
        # Cuts are distinct and tokens come one at a time, so at most one cut is reached.
        if self._pending and self._pending[-1] == self._tokens:
            self._pending.pop()
            self._record_cut()

    def trace(self, count_chars: Callable[[int], int]) -> KVTrace:
        """The finished chain's trace.

        Args:
            count_chars: Gives the characters made by the first so many tokens.
        """
        # The chain's own length is the last cut, whether it was asked for or not.
        if not self._cuts or self._cuts[-1].tokens != self._tokens:
            self._record_cut()
        return KVTrace(
            lengths=tuple(cut.tokens for cut in self._cuts),
            kv_reads=tuple(cut.reads / self._rows for cut in self._cuts),
            peak_kv=tuple(cut.peak / self._rows for cut in self._cuts),
            chars=tuple(count_chars(cut.tokens) for cut in self._cuts),
            logprobs=tuple(cut.logprob for cut in self._cuts),
            inserted=tuple(cut.inserted for cut in self._cuts),
            prefill_kv=self._prefill_held / self._rows,
            prefill_reads=None if self.prefill_reads is None else self.prefill_reads / self._rows,
        )

    def _record_cut(self) -> None:
        self._cuts.append(_Cut(self._tokens, self._reads, self._peak, self.logprob, self.inserted))
