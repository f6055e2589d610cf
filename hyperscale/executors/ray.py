"""Engines as Ray actors, over all machines of a cluster: placement and the notice of a loss are Ray's.

Each engine has a placement group of one bundle, so the GPUs that share it are on one machine. An engine whose machine
is gone is asked for anew, and starts wherever there is room, on a machine that came later too.
"""

import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from threading import Lock, Thread, current_thread, main_thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from hyperscale.errors import EngineError, first_line
from hyperscale.executors.executor import EngineResources, Executor, WorkerHandle, WorkerLostError
from hyperscale.executors.messages import Order, Report
from hyperscale.executors.worker import EngineWorker

_SECONDS_BETWEEN_REPORTS = 1.0
_SECONDS_TO_END = 20.0
_SECONDS_TO_CONNECT = 10.0


def connect(address: str | None) -> Any:
    """The module ``ray``, connected to a cluster; one is started on this machine if there is none.

    Args:
        address: As `ray.init` takes it; None for the one that ``RAY_ADDRESS`` names or that this machine is part of.

    Raises:
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        return ray
    _check_address(address or os.environ.get("RAY_ADDRESS"))
    _silence_raylet()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    handlers = _signal_handlers()
    try:
        if address is None and "RAY_ADDRESS" not in os.environ:
            with suppress(ConnectionError):
                ray.init("auto", **quiet)
                return ray
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address or os.environ.get("RAY_ADDRESS", "this machine"), error) from None
    finally:
        # Ray takes SIGTERM for itself, by which schedulers end a run: the run answers it as it does without Ray.
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ray


def _signal_handlers() -> dict[signal.Signals, Any]:
    """What answers the signals that end a run; nothing outside the main thread, which alone may change it."""
    if current_thread() is not main_thread():
        return {}
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler is not None}  # None is not Python's


def _check_address(address: str | None) -> None:
    """Refuse an address where nobody listens: Ray itself tries for minutes.

    Raises:
        EngineError: It is one.
    """
    parts = urlsplit(address if address and "://" in address else f"//{address or ''}")
    if parts.hostname is None or parts.port is None:
        return  # "auto", "local", or none
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=_SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise _no_cluster(str(address), error) from None


def _no_cluster(where: str, error: Exception) -> EngineError:
    return EngineError(
        f"no Ray cluster at {where} ({first_line(error)}): start one with `ray start --head`, or pass another --address"
    )


def _silence_raylet() -> None:
    """Keep the standard output for the run: Ray writes there of processes that it lost, whatever ``log_to_driver`` is.

    The run tells of them itself. Ray has no setting for this; where its insides have changed, it writes.
    """
    worker: Any = import_module("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def load_ray() -> Any:
    """The module ``ray``.

    Raises:
        EngineError: It is not installed.
    """
    try:
        return import_module("ray")
    except ImportError:
        advice = "pip install 'hyperscale-kv[ray]', or leave --executor out"
        raise EngineError(f"--executor ray needs Ray: {advice}") from None


def count_gpus(address: str | None) -> list[int]:
    """GPUs of each machine of a cluster that has some.

    Raises:
        EngineError: There is no cluster.
    """
    counts = [int(node["Resources"].get("GPU", 0)) for node in connect(address).nodes() if node["Alive"]]
    return [count for count in counts if count]


class RayActor:
    """An `EngineWorker` in an actor, whose methods run in threads beside the engine's.

    Ray starts the calls of several threads in the order in which they were made, but which thread comes first is not
    said. Orders have an order: one that says that no more are waiting, overtaken by the one before it, would let the
    engine wait for a request that nobody has, with chains in the middle. So orders are numbered and wait for their
    turn here.
    """

    def __init__(self) -> None:
        self._worker = EngineWorker()
        self._given = 0
        self._early: dict[int, Order] = {}
        self._lock = Lock()
        self._thread = Thread(target=self._worker.run, daemon=True)
        self._thread.start()

    def give(self, number: int, order: Order) -> None:
        """Take an order once those with lower numbers, which begin at 1, are here."""
        with self._lock:
            self._early[number] = order
            while (following := self._early.pop(self._given + 1, None)) is not None:
                self._worker.give(following)
                self._given += 1

    def take(self, timeout: float) -> Report:
        """See `EngineWorker.take`."""
        return self._worker.take(timeout)

    def close(self, timeout: float) -> None:
        """End the engine, and wait for that so many seconds."""
        self._worker.close()
        self._thread.join(timeout)


class RayExecutor(Executor):
    """Starts actors.

    Attributes:
        name: See `Executor`.
    """

    name = "ray"

    def __init__(self, resources: EngineResources, address: str | None = None) -> None:
        """Connect to a cluster.

        Args:
            resources: What each engine takes.
            address: See `connect`.

        Raises:
            EngineError: Ray is not installed, or there is no cluster.
        """
        self._ray, self._resources = connect(address), resources
        self._closing: list[RayWorker] = []

    def start(self, number: int) -> WorkerHandle:
        """See `Executor.start`."""
        return RayWorker(self._ray, self._resources, number, self._closing)

    def wait(self, workers: Sequence[WorkerHandle], timeout: float) -> None:
        """See `Executor.wait`."""
        references = [worker.reference for worker in workers if isinstance(worker, RayWorker)]
        if references:
            self._ray.wait(references, num_returns=1, timeout=timeout)

    def close(self) -> None:
        """See `Executor.close`."""
        deadline = monotonic() + _SECONDS_TO_END  # for all of them together
        for worker in self._closing:
            worker.end(max(0.0, deadline - monotonic()))


class RayWorker(WorkerHandle):
    """An actor, which may wait for room before it starts.

    Attributes:
        reference: Of the report that is to come next.
    """

    def __init__(self, ray: Any, resources: EngineResources, number: int, closing: "list[RayWorker]") -> None:
        self.number = number
        self._ray, self._closing = ray, closing
        self._orders = 0
        self._giving: list[Any] = []  # orders that are on their way
        self._is_cut_off = False
        cpus = resources.cpus or 1
        bundle = {"CPU": cpus, **({"GPU": resources.gpus} if resources.gpus else {})}
        self._group = ray.util.placement_group([bundle], strategy="STRICT_PACK")
        strategies = import_module("ray.util.scheduling_strategies")
        # Engines compute with the cores that Ray gives them; libraries read this when they are loaded.
        threads = {} if resources.gpus else {"OMP_NUM_THREADS": str(cpus)}
        actor = ray.remote(RayActor).options(
            num_cpus=cpus,
            num_gpus=resources.gpus,
            max_concurrency=4,  # give, take, close
            max_restarts=0,
            scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(self._group),
            runtime_env={"env_vars": threads},
        )
        self._actor = actor.remote()
        self.reference = self._actor.take.remote(0)  # at once: the process is here

    def give(self, order: Order) -> None:
        """See `WorkerHandle.give`."""
        self._orders += 1
        self._giving.append(self._actor.give.remote(self._orders, order))

    def take(self) -> list[Report]:
        """See `WorkerHandle.take`."""
        self._require_orders_read()
        reports: list[Report] = []
        while self._ray.wait([self.reference], timeout=0)[0]:
            try:
                report = self._ray.get(self.reference)
            except self._ray.exceptions.ActorUnavailableError:
                # The connection broke, and a report may have gone with it. What became of the actor is not known yet:
                # the next answer tells.
                self._is_cut_off = True
                self.reference = self._actor.take.remote(0)
                break
            except self._ray.exceptions.RayError as error:
                if reports:
                    return reports
                raise self._explain(error) from None
            if self._is_cut_off:
                raise WorkerLostError("the connection to it broke", is_innocent=True)
            reports.append(report)
            self.is_here = True
            self.reference = self._actor.take.remote(_SECONDS_BETWEEN_REPORTS)
            if not report.events:
                break
        return reports

    def _require_orders_read(self) -> None:
        """Notice an order that the actor cannot read, as where another version is installed there.

        Raises:
            WorkerLostError: There is one; it will not answer it.
        """
        if not self._giving:
            return
        arrived, self._giving = self._ray.wait(self._giving, num_returns=len(self._giving), timeout=0)
        for reference in arrived:
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise WorkerLostError(f"it cannot read what it is given: {_last_line(error)}") from None
            except self._ray.exceptions.RayError:
                return  # it is gone, and `take` tells why

    def _explain(self, error: Exception) -> WorkerLostError:
        text = str(error)
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return WorkerLostError("its machine ran out of memory")
        # What Ray says when it is the machine that is gone, whatever ran there.
        is_innocent = any(words in text for words in ("node was terminated", "NODE_DIED", "node has died", "node died"))
        reason = "its machine is gone" if is_innocent else "its process ended"
        return WorkerLostError(reason, is_innocent=is_innocent)

    def kill(self) -> None:
        """See `WorkerHandle.kill`."""
        with suppress(Exception):  # it may be gone with its machine
            self._ray.kill(self._actor)
        with suppress(Exception):
            self._ray.util.remove_placement_group(self._group)

    def close(self) -> None:
        """See `WorkerHandle.close`."""
        if not self.is_here:  # it never found room, and nobody would answer
            self.kill()
            return
        self._end = self._actor.close.remote(_SECONDS_TO_END)
        self._closing.append(self)

    def end(self, timeout: float) -> None:
        """Wait for the engine to be closed, for so many seconds, and end the actor."""
        with suppress(Exception):
            self._ray.get(self._end, timeout=timeout)
        self.kill()


def _last_line(error: Exception) -> str:
    """What an error in an actor was; above it stands where."""
    return str(error).strip().splitlines()[-1]
