"""Engines in processes of this machine, each with GPUs, or with a part of the CPU's cores, of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import hyperscale
from hyperscale.errors import EngineError
from hyperscale.executors.executor import EngineResources, Executor, WorkerHandle, WorkerLostError
from hyperscale.executors.messages import Order, Report

_SECONDS_TO_END = 20.0


class LocalExecutor(Executor):
    """Starts processes.

    Attributes:
        name: See `Executor`.
    """

    name = "local"

    def __init__(self, resources: EngineResources, count: int, gpus: Sequence[str] = ()) -> None:
        """Share the machine out.

        Args:
            resources: What each engine takes.
            count: How many engines there are at a time.
            gpus: Names of the GPUs, as in ``CUDA_VISIBLE_DEVICES``; at least ``count * resources.gpus``.
        """
        assert len(gpus) >= count * resources.gpus
        self._resources, self._count = resources, count
        # A worker takes the place of the one that is gone, so that two never have one GPU.
        self._gpus = [tuple(gpus[i * resources.gpus : (i + 1) * resources.gpus]) for i in range(count)]
        self._places: dict[int, LocalWorker | None] = dict.fromkeys(range(count))

    def start(self, number: int) -> WorkerHandle:
        """See `Executor.start`."""
        place = next((i for i, worker in self._places.items() if worker is None or worker.is_over), None)
        assert place is not None, "more workers than places"
        worker = self._places[place] = LocalWorker(number, self._environment(place))
        return worker

    def _environment(self, place: int) -> dict[str, str]:
        environment = dict(os.environ)
        # The package is found where this process found it, installed or not.
        root = str(Path(hyperscale.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        if self._resources.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[place])
        else:
            cores = self._resources.cpus or max(1, count_cores() // self._count)
            environment.setdefault("OMP_NUM_THREADS", str(cores))
        return environment

    def wait(self, workers: Sequence[WorkerHandle], timeout: float) -> None:
        """See `Executor.wait`."""
        wait([worker.connection for worker in workers if isinstance(worker, LocalWorker)], timeout)

    def close(self) -> None:
        """See `Executor.close`."""
        for worker in self._places.values():
            if worker is not None:
                worker.end()


class LocalWorker(WorkerHandle):
    """A process of this machine, at the other end of a pair of sockets.

    Attributes:
        connection: Ours of the two ends.
    """

    def __init__(self, number: int, environment: dict[str, str]) -> None:
        self.number = number
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "hyperscale.executors.local_worker", str(theirs.fileno())]
        try:
            # What engines and their libraries print is no output of the command.
            self._process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,  # with all that it starts; Ctrl-C is for the run alone
            )
        except OSError as error:
            reason = f"cannot start a process for an engine ({error.strerror})"
            raise EngineError(f"{reason}: choose fewer --engines") from None
        finally:
            theirs.close()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def give(self, order: Order) -> None:
        """See `WorkerHandle.give`."""
        with suppress(OSError):  # broken pipe
            self.connection.send(order)

    def take(self) -> list[Report]:
        """See `WorkerHandle.take`."""
        reports: list[Report] = []
        try:
            while self.connection.poll():
                reports.append(self.connection.recv())
                self.is_here = True
        except (EOFError, OSError):
            if not reports:
                raise WorkerLostError(self._explain_end()) from None
        if not reports and self.is_over:  # a process that it left behind may hold its end of the connection
            raise WorkerLostError(self._explain_end())
        return reports

    def _explain_end(self) -> str:
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
            return "its process stopped answering"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def kill(self) -> None:
        """See `WorkerHandle.kill`."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """See `WorkerHandle.close`."""
        with suppress(OSError):
            self.connection.send(None)

    def end(self) -> None:
        """Wait for the process to end by itself, and end it if it does not."""
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
        self.connection.close()


def connect(descriptor: int) -> "Connection[Report, Order | None]":
    """The worker's end of the pair."""
    return Connection(descriptor)


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
