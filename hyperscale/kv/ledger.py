"""The ledger: what each chain read and held, counted in integers as it is generated."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

from hyperscale.kv.trace import KVTrace


class Ledger:
    """Reads, peak and log-probability of one chain.

    Counts are sums over layers and KV heads, so they stay exact; only the final trace divides by the number of rows.

    Attributes:
        logprob: Sum of the log-probabilities of the drawn tokens.
        inserted: Number of tokens that were not drawn.
    """

    def __init__(self, rows: int, checkpoints: Sequence[int]) -> None:
        self._rows = rows
        self._pending = sorted(set(checkpoints), reverse=True)
        self._tokens = self._reads = self._peak = self.inserted = 0
        self.logprob = 0.0
        self._marks: list[tuple[int, int, int, float, int]] = []

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
        other._pending, other._marks = list(self._pending), list(self._marks)
        return other

    def token(self, read: int, held: int, logprob: float | None = 0.0) -> None:
        """Count one generated token, drawn from the logits of a step: the prefill for the first, else a decode step.

        Args:
            read: Entries that the step attended to, over all rows; the prefill's do not count.
            held: Entries that lived in it, over all rows.
            logprob: The token's log-probability; None if it was inserted, not drawn.
        """
        if self._tokens:
            self._reads += read
        self._peak = max(self._peak, held)
        self._tokens += 1
        if logprob is None:
            self.inserted += 1
        else:
            self.logprob += logprob
        if self._pending and self._pending[-1] == self._tokens:
            self._pending.pop()
            self._mark()

    def trace(self, chars: Callable[[int], int]) -> KVTrace:
        """The finished chain's trace; ``chars`` gives the characters made by the first so many tokens."""
        if not self._marks or self._marks[-1][0] != self._tokens:
            self._mark()
        return KVTrace(
            lengths=tuple(tokens for tokens, *_ in self._marks),
            kv_reads=tuple(reads / self._rows for _, reads, *_ in self._marks),
            peak_kv=tuple(peak / self._rows for _, _, peak, *_ in self._marks),
            chars=tuple(chars(tokens) for tokens, *_ in self._marks),
            logprobs=tuple(mark[3] for mark in self._marks),
            inserted=tuple(mark[4] for mark in self._marks),
        )

    def _mark(self) -> None:
        self._marks.append((self._tokens, self._reads, self._peak, self.logprob, self.inserted))
