"""Running figures of an arm: chains done, accuracy, realised CR, speed and time left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.kv.trace import dense_reads
from hyperscale.results.samples import Sample
from hyperscale.run.observer import Load


@dataclass(frozen=True)
class Figures:
    """How far an arm is.

    Attributes:
        done: Finished chains, those of earlier processes included.
        total: Chains in all.
        right: Share of the finished chains whose answer is right; None before the first.
        realised_cr: Entries that an uncompressed cache would have read / entries read, of the finished chains; None
            before the first.
        tokens_per_second: Of this process; None until one of its chains has finished.
        seconds: Since the arm started in this process.
        seconds_left: Estimated; None while no speed is known, 0 at the end.
    """

    done: int
    total: int
    right: float | None
    realised_cr: float | None
    tokens_per_second: float | None
    seconds: float
    seconds_left: float | None


class Tally:
    """Running figures of one arm.

    Speed and time left are told from the first finished chain on, long before the mean of finished chains means
    anything: chains in flight move at about the pace of those that finished, and the rest is taken to lie between their
    mean length and the longest allowed, nearer to the mean as more finish.
    """

    def __init__(self, load: Load, samples: Sequence[Sample] = ()) -> None:
        self.total, self._most, self._batch = load.chains, load.most_tokens, load.batch_size
        self.done = self._right = self._fresh = self._tokens = 0
        self._reads = self._dense = self._seconds = 0.0
        self._started = time.monotonic()
        for sample in samples:
            self.add(sample, fresh=False)

    def add(self, sample: Sample, *, fresh: bool = True) -> None:
        """Count a chain; ``fresh`` ones were generated in this process and tell the speed."""
        self.done += 1
        self._right += bool(sample.whole.correct)
        self._reads += sample.whole.kv_reads
        self._dense += dense_reads(sample.prompt_tokens, sample.tokens)
        if fresh:
            self._fresh += 1
            self._tokens += sample.tokens
            self._seconds += sample.seconds

    def figures(self) -> Figures:
        """How far the arm is now."""
        passed = max(time.monotonic() - self._started, 1e-3)
        speed, left = None, None
        if self.done == self.total:
            speed, left = self._tokens / passed if self._fresh else None, 0.0
        elif self._fresh:
            speed = min(self._batch, self.total - self.done) * self._tokens / max(self._seconds, 1e-3)
            share = self.done / self.total
            expected = share * self._tokens / self._fresh + (1 - share) * self._most / self.total
            left = (self.total - self.done) * expected / max(speed, 1e-3)
        return Figures(
            self.done,
            self.total,
            self._right / self.done if self.done else None,
            self._dense / self._reads if self._reads else None,
            speed,
            passed,
            left,
        )

    def __str__(self) -> str:
        now = self.figures()
        if now.right is None:
            return f"{min(self._batch, self.total)} chains under way"
        parts = [f"{100 * now.right:.0f}% right"]
        if now.realised_cr is not None:
            parts.append(f"realised CR {now.realised_cr:.1f}")
        if now.tokens_per_second is not None:
            over = "" if now.seconds_left else f" in {_clock(now.seconds)}"
            parts.append(f"{now.tokens_per_second:,.0f} tokens/s{over}")
        if now.seconds_left:
            parts.append(f"about {_clock(now.seconds_left)} left")
        return " · ".join(parts)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
