"""Keeps the running figures of an arm: chains done, accuracy, realised CR, speed and time left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.kv.trace import dense_reads
from hyperscale.results.samples import Sample
from hyperscale.run.observer import ArmSize


@dataclass(frozen=True)
class ArmFigures:
    """How far an arm is.

    Attributes:
        done: Finished chains, those of earlier processes included.
        total: Chains in all.
        accuracy: Share of the finished chains whose answer is right; None before the first.
        realised_cr: Entries that an uncompressed cache would have read / entries read, of the finished chains; None
            before the first.
        tokens_per_second: Of this process; None until one of its chains has finished.
        seconds: Since the arm started in this process.
        seconds_left: Estimated; None while no speed is known, 0 at the end.
    """

    done: int
    total: int
    accuracy: float | None
    realised_cr: float | None
    tokens_per_second: float | None
    seconds: float
    seconds_left: float | None


class ArmProgress:
    """Counts the chains of one arm as they finish.

    Speed and time left are estimated from the first finished chain on, long before the mean of the finished chains is
    reliable: short chains finish first. The mean length of the remaining chains is therefore taken to lie between the
    mean of the finished ones and the longest allowed, nearer to the former as more finish.
    """

    def __init__(self, size: ArmSize, samples: Sequence[Sample] = ()) -> None:
        self.total, self._max_tokens, self._batch_size = size.chains, size.max_tokens, size.batch_size
        self.done = self._n_correct = 0
        self._reads = self._dense_reads = 0.0
        # Of the chains that this process has generated: those of an earlier one tell nothing about its speed.
        self._n_new = self._new_tokens = 0
        self._new_seconds = 0.0
        self._start = time.monotonic()
        for sample in samples:
            self.add(sample, new=False)

    def add(self, sample: Sample, *, new: bool = True) -> None:
        """Count a chain; ``new`` ones were generated in this process."""
        self.done += 1
        self._n_correct += bool(sample.whole.correct)
        self._reads += sample.whole.kv_reads
        self._dense_reads += dense_reads(sample.prompt_tokens, sample.tokens)
        if new:
            self._n_new += 1
            self._new_tokens += sample.tokens
            self._new_seconds += sample.seconds

    def figures(self) -> ArmFigures:
        """How far the arm is now."""
        seconds = max(time.monotonic() - self._start, 1e-3)
        speed, seconds_left = None, None
        if self.done == self.total:
            speed, seconds_left = self._new_tokens / seconds if self._n_new else None, 0.0
        elif self._n_new:
            # A chain's seconds are its time in the batch, so tokens / seconds is the pace of one chain; as many chains
            # as the batch holds run at that pace.
            remaining = self.total - self.done
            speed = min(self._batch_size, remaining) * self._new_tokens / max(self._new_seconds, 1e-3)
            share = self.done / self.total
            mean_tokens = share * self._new_tokens / self._n_new + (1 - share) * self._max_tokens / self.total
            seconds_left = remaining * mean_tokens / max(speed, 1e-3)
        return ArmFigures(
            done=self.done,
            total=self.total,
            accuracy=self._n_correct / self.done if self.done else None,
            realised_cr=self._dense_reads / self._reads if self._reads else None,
            tokens_per_second=speed,
            seconds=seconds,
            seconds_left=seconds_left,
        )

    def __str__(self) -> str:
        now = self.figures()
        if now.accuracy is None:
            return f"{min(self._batch_size, self.total)} chains running"
        parts = [f"{100 * now.accuracy:.0f}% right"]
        if now.realised_cr is not None:
            parts.append(f"realised CR {now.realised_cr:.1f}")
        if now.tokens_per_second is not None:
            in_all = "" if now.seconds_left else f" in {_format_clock(now.seconds)}"
            parts.append(f"{now.tokens_per_second:,.0f} tokens/s{in_all}")
        if now.seconds_left:
            parts.append(f"about {_format_clock(now.seconds_left)} left")
        return " · ".join(parts)


def _format_clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
