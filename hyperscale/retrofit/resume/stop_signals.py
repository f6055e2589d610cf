"""Holds signals that end a process back until a training step is complete and its state is on the disk."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class StopSignals:
    """While it is entered, a first signal is noted, and a second one does what it would have done without this.

    Attributes:
        received: Number of the signal that came; None as long as none has.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for name in _SIGNALS:
                number = getattr(signal, name, None)
                # A shell's nohup has SIGHUP ignored, and it must stay so.
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def deliver(self) -> None:
        """Let the signal that came do what it would have done when it came."""
        self._restore()
        if self.received is not None:
            signal.raise_signal(self.received)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
