"""Keeps the state of a training on the disk every few minutes, and once more when a signal ends the process."""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hyperscale.retrofit.resume.state_parts import StateParts
from hyperscale.retrofit.resume.stop_signals import StopSignals

if TYPE_CHECKING:
    from hyperscale.retrofit.trainer import Retrofit


class StateSaver:
    """While it is entered, signals wait for the end of a step.

    Args:
        retrofit: The training.
        folder: Where the state goes.
        seconds: Between two states.
        report: Called with a line when a state was written, or could not be.
    """

    def __init__(self, retrofit: "Retrofit", folder: Path, seconds: float, report: Callable[[str], None]) -> None:
        self._retrofit, self._seconds, self._report = retrofit, seconds, report
        self._parts = StateParts(folder, retrofit.ranks)
        self._signals = StopSignals()
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.__exit__(kind, error, trace)

    def after_step(self) -> None:
        """Write the state if it is due; if a signal came, write it and let the signal act.

        Raises:
            RetrofitError: A loss was not finite: no such state is written, and the last good one stays.
        """
        stopping = self._signals.received is not None
        # One before each checkpoint too: if that finds the disk full, no step is lost.
        due = self._retrofit.checkpoint_due or time.monotonic() - self._last >= self._seconds
        if self._retrofit.ranks.count > 1:
            # Clocks differ, and a signal may have reached some of the processes: all do what one has to.
            told = self._retrofit.ranks.gather((stopping, due))
            stopping, due = (any(each) for each in zip(*told, strict=True))
        if not (stopping or due):
            return
        self._retrofit.require_finite()
        if self._parts.write(self._retrofit.state_dict(), self._report):
            self._report(f"kept the state after {self._retrofit.steps_done:,} steps")
        self._last = time.monotonic()
        if stopping:
            self._signals.deliver()
