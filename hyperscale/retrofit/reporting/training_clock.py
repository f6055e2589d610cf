"""Times a training: how long it has taken, its pace since a step was last read out, and the hours that are left."""

import time


class TrainingClock:
    """The time of one training, in one process."""

    def __init__(self) -> None:
        self._start = self._first_step = self._last_read = time.monotonic()
        self._tokens = self._steps = 0

    @property
    def seconds(self) -> float:
        """Time that the training has taken, what was before a resume included."""
        return time.monotonic() - self._start

    @property
    def since_read(self) -> float:
        """Seconds since a step was read out."""
        return time.monotonic() - self._last_read

    def go_on_from(self, seconds: float) -> None:
        """Take up a training that has taken so long."""
        self._start = time.monotonic() - seconds

    def count_tokens(self, tokens: int) -> None:
        """Tokens have been read."""
        self._tokens += tokens

    def count_step(self) -> None:
        """A step is done."""
        self._steps += 1

    def read(self, steps_left: int) -> tuple[float, float]:
        """Read a step out.

        Args:
            steps_left: Steps to the end of the training.

        Returns:
            Tokens a second since the last call, and hours to the end at the pace of this process.
        """
        now = time.monotonic()
        pace = self._tokens / max(now - self._last_read, 1e-9)
        self._last_read, self._tokens = now, 0
        return pace, steps_left * (now - self._first_step) / max(self._steps, 1) / 3600
