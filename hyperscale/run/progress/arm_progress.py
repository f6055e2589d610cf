"""Keeps the running figures of an arm: chains done, right answers at each L, realised CR, speed and time left."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.kv.trace import dense_reads
from hyperscale.results.samples import Sample
from hyperscale.run.observer import ArmSize
from hyperscale.run.progress.finished_problems import FinishedProblems, RightAt
from hyperscale.utils.quantities import format_speed

NOTHING = "·"  # where an arm has no value


@dataclass(frozen=True)
class ArmFigures:
    """How far an arm is.

    Attributes:
        done: Finished chains, those of earlier processes included.
        total: Chains in all.
        accuracy: Share of the finished chains whose answer is right; None before the first. Quick chains finish first,
            so it falls as the arm goes on: ``right_at`` is what arms can be compared by.
        right_at: Right answers at each L, over the problems that are finished there.
        realised_cr: Entries that an uncompressed cache would have read / entries read, of the finished chains; None
            before the first.
        tokens_per_second: Of this process; None until one of its chains has finished.
        seconds: Since the arm started in this process.
        seconds_left: Estimated; None while no speed is known, 0 at the end.
    """

    done: int
    total: int
    accuracy: float | None
    right_at: tuple[RightAt, ...]
    realised_cr: float | None
    tokens_per_second: float | None
    seconds: float
    seconds_left: float | None


class ArmProgress:
    """Counts the chains of one arm as they finish.

    Speed and time left are estimated from the first finished chain on, long before the mean of the finished chains is
    reliable: short chains finish first. The mean length of the remaining chains is therefore taken to lie between the
    mean of the finished ones and the longest allowed, nearer to the former as more finish.

    Args:
        size: What the arm generates in all.
        samples: Chains of it that earlier processes have generated.
        reference: An arm that right answers are compared with, and its name.
    """

    def __init__(
        self, size: ArmSize, samples: Sequence[Sample] = (), reference: "tuple[str, ArmProgress] | None" = None
    ) -> None:
        self._reference_name = reference[0] if reference else ""
        self._finished: FinishedProblems = FinishedProblems(size.chains_at)
        self._reference = reference[1]._finished if reference else None
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
        self._finished.add(sample)
        self._n_correct += bool(sample.whole.correct)
        self._reads += sample.whole.kv_reads
        self._dense_reads += sum(dense_reads(prompt, tokens) for prompt, tokens in sample.sequences)
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
            right_at=self._finished.right_at(self._reference),
            realised_cr=self._dense_reads / self._reads if self._reads else None,
            tokens_per_second=speed,
            seconds=seconds,
            seconds_left=seconds_left,
        )

    def __str__(self) -> str:
        return self.describe()

    def describe(self, width: int | None = None) -> str:
        """The figures in a line, of at most so many columns: what matters least is left out."""
        now, room = self.figures(), sys.maxsize if width is None else width
        if now.accuracy is None:
            return f"{min(self._batch_size, self.total)} chains running"
        left = f"about {_format_clock(now.seconds_left)} left" if now.seconds_left else ""
        speed = f"{format_speed(now.tokens_per_second)} tokens/s" if now.tokens_per_second else ""
        if speed and not now.seconds_left:
            speed += f" in {_format_clock(now.seconds)}"
        ratio = "" if now.realised_cr is None else f"realised CR {now.realised_cr:.1f}"
        # In the order of the line; of those that do not fit, the last named goes first.
        parts = [_describe_right(now.right_at, self._reference_name), ratio, speed, left]
        for dropped in ("", ratio, speed):
            parts = [part for part in parts if part and part != dropped]
            line = " · ".join(parts)
            if len(line) <= room:
                return line
        # Only one L is left, that with the most finished problems.
        one = max(now.right_at, key=lambda share: (share.problems, share.L), default=None)
        right = "" if one is None else f"{100 * one.right:.0f} % of {one.problems} right at L {one.L}"
        left = left.removeprefix("about ")
        return next((line for line in (" · ".join(filter(None, (right, left))), left, right) if len(line) <= room), "")


def _describe_right(shares: Sequence[RightAt], reference: str) -> str:
    """Right answers at each L: ``right at L 256/1024: 12/58 % of 18 problems (vanilla 10/55)``."""
    if not shares:
        return ""
    lengths = "/".join(str(share.L) for share in shares)
    right = "/".join(f"{100 * share.right:.0f}" for share in shares)
    counts = "/".join(dict.fromkeys(str(share.problems) for share in shares))
    if "/" in counts:  # unlike numbers: each beside its L
        counts = "/".join(str(share.problems) for share in shares)
    text = f"right at L {lengths}: {right} % of {counts} problem{'s' * (counts != '1')}"
    if reference and any(share.reference is not None for share in shares):
        others = (NOTHING if share.reference is None else f"{100 * share.reference:.0f}" for share in shares)
        text += f" ({reference} {'/'.join(others)})"
    return text


def _format_clock(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
