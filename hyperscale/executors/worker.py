"""The far end of a pool: one engine in a process of its own, fed with requests while it works."""

import platform
import traceback
from collections import deque
from collections.abc import Iterator
from threading import Condition
from time import monotonic

from hyperscale.engines.base import ChainProgress, Engine, Request
from hyperscale.errors import EngineError, HyperscaleError
from hyperscale.executors.messages import (
    EngineFailed,
    EngineReady,
    Event,
    FinishedChain,
    Job,
    NewToken,
    Order,
    Report,
)
from hyperscale.executors.slot import EngineSlot
from hyperscale.utils.hub import silence_transformers

_SECONDS_TO_BE_KNOWN = 5.0


class EngineWorker:
    """Runs an engine in one thread (`run`), while others give it requests (`give`) and take its news (`take`).

    An engine that failed is not used again: `run` returns, and the process is to end.

    Attributes:
        is_over: Whether `run` has returned: what is to be taken then is all that there will be.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._requests: deque[Request] = deque()
        self._job: Job | None = None
        self._is_last = False
        self._closed = False
        self._events: list[Event] = []
        self._engine: Engine | None = None
        self._idle_seconds = 0.0
        self._takes = 0
        self.is_over = False

    def give(self, order: Order) -> None:
        """Take requests; of another job only when those before it are done."""
        with self._changed:
            self._job, self._is_last = order.job, order.is_last
            self._requests.extend(order.requests)
            self._changed.notify_all()

    def take(self, timeout: float) -> Report:
        """News, as soon as there are events, or after so many seconds."""
        with self._changed:
            self._takes += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._events or self.is_over, timeout)
            events, self._events = tuple(self._events), []
            self._changed.notify_all()
        steps = 0 if self._engine is None else self._engine.steps
        return Report(platform.node(), steps, self._idle_seconds, events)

    def close(self) -> None:
        """Let `run` return once the engine is done with the chains that it has begun."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._changed.notify_all()

    def run(self) -> None:
        """Generate what is asked for, until the worker is closed or its engine fails."""
        slot = EngineSlot()
        silence_transformers()
        try:
            while (job := self._wait_for_job()) is not None:
                self._run_job(slot, job)
        except EngineError as error:
            self._emit(EngineFailed(str(error), error))
        except HyperscaleError as error:
            self._emit(EngineFailed(str(error), error, is_final=True))
        except (Exception, SystemExit) as error:  # a library may end its process; here it is told like the rest
            self._emit(EngineFailed("".join(traceback.format_exception_only(error)).strip()))
            traceback.print_exc()
        finally:
            slot.close()
            with self._changed:
                self.is_over = True
                self._changed.notify_all()

    def _wait_for_job(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._closed)
            return None if self._closed else self._job

    def _run_job(self, slot: EngineSlot, job: Job) -> None:
        engine = self._engine = slot.engine(job.provider, job.spec, lambda: job.whole)
        self._emit(EngineReady(job.number))
        self._wait_until_known()

        def tell(progress: ChainProgress) -> None:
            self._emit(NewToken(job.number, progress.request, progress.tokens, progress.entries, progress.text()))

        for chain in engine.generate(self._draw(job), job.sampling, tell if job.is_watched else None):
            self._emit(FinishedChain(job.number, chain))

    def _wait_until_known(self) -> None:
        """Wait until all events have arrived, or for a few seconds: news is lost with a process that is killed.

        Who asks for the next report has the last one.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._events, _SECONDS_TO_BE_KNOWN)
            takes = self._takes
            self._changed.wait_for(lambda: self._takes > takes, _SECONDS_TO_BE_KNOWN)

    def _draw(self, job: Job) -> Iterator[Request]:
        """The requests of a job as the engine has room for them; it waits for some only while there are any."""

        def is_over() -> bool:
            # The next job may come while the engine is about to see that this one has no more requests.
            return self._closed or self._job is None or self._job.number != job.number

        while True:
            with self._changed:
                start = monotonic()
                self._changed.wait_for(lambda: self._requests or self._is_last or is_over())
                self._idle_seconds += monotonic() - start
                if not self._requests or is_over():
                    return
                request = self._requests.popleft()
            yield request

    def _emit(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
