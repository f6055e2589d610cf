"""Learns what requests hold of what their options let expect, so that admission neither wastes room nor thrashes.

How many entries stay depends on the model and the text, and how full pages are on how unequal the heads are. Both are
seen in the requests that run and in those that have finished. A guess that is too low costs preemptions; then admission
is more careful for a while.
"""

from collections import deque
from collections.abc import Iterable
from math import sqrt

_REMEMBERED = 64  # finished requests
_TRUST = 4.0  # requests whose weight the options' guess has
_LEAST_MARGIN = 0.05  # shares may still grow
_CAUTION = (1.1, 0.97, 2.0)  # factor at a preemption, at a request that finishes, and at most


class HeldShares:
    """Shares of the expected superblocks that requests hold; 1 is what the options let expect."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._finished: deque[float] = deque(maxlen=_REMEMBERED)
        self._caution = 1.0

    def record_finish(self, share: float | None) -> None:
        """A request has finished; None if its share never became known."""
        if share is not None:
            self._finished.append(share)
        self._caution = max(self._caution * _CAUTION[1], 1.0)

    def record_preemption(self) -> None:
        """A request was preempted: too many had been admitted."""
        self._caution = min(self._caution * _CAUTION[0], _CAUTION[2])

    def estimate(self, running: Iterable[float]) -> tuple[float, float, float]:
        """What to count on.

        Args:
            running: Shares of the running requests, as far as they are known.

        Returns:
            The share of a request of which nothing is known; a factor on what requests are still to take, which keeps
            room for error; and a factor on all that they hold, which is above 1 for a while after a preemption.
        """
        shares = [*self._finished, *running]
        n, total = len(shares), sum(shares)
        if not total:
            return 1.0, 1.0, self._caution
        mean = total / n
        # The room for error of a sum of many: the less the more there are, as far as they err independently.
        spread = sqrt(sum((share - mean) ** 2 for share in shares) / n) / mean
        margin = _LEAST_MARGIN + 2 * spread / sqrt(n)
        return (_TRUST + total) / (_TRUST + n), 1 + margin, self._caution
