"""The ledger: what each chain read and held, counted in integers as it is generated."""

from collections.abc import Callable, Sequence

from hyperscale.kv.trace import KVTrace


class Ledger:
    """Reads and peak of one chain.

    Counts are sums over layers and KV heads, so they stay exact; only the final trace divides by the number of rows.
    """

    def __init__(self, rows: int, checkpoints: Sequence[int]) -> None:
        self._rows = rows
        self._pending = sorted(set(checkpoints), reverse=True)
        self._tokens = self._reads = self._peak = 0
        self._marks: list[tuple[int, int, int]] = []

    def token(self, live: int) -> None:
        """Count one generated token.

        Args:
            live: Live entries, over all rows, in the step whose logits the token was drawn from: the prefill for the
                first token, whose reads do not count, a decode step for every other.
        """
        if self._tokens:
            self._reads += live
        self._peak = max(self._peak, live)
        self._tokens += 1
        if self._pending and self._pending[-1] == self._tokens:
            self._pending.pop()
            self._mark()

    def trace(self, chars: Callable[[int], int]) -> KVTrace:
        """The finished chain's trace; ``chars`` gives the characters made by the first so many tokens."""
        if not self._marks or self._marks[-1][0] != self._tokens:
            self._mark()
        return KVTrace(
            lengths=tuple(tokens for tokens, _, _ in self._marks),
            kv_reads=tuple(reads / self._rows for _, reads, _ in self._marks),
            peak_kv=tuple(peak / self._rows for _, _, peak in self._marks),
            chars=tuple(chars(tokens) for tokens, _, _ in self._marks),
        )

    def _mark(self) -> None:
        self._marks.append((self._tokens, self._reads, self._peak))
