"""The contract by which a pool gets engines somewhere: in processes of this machine, or over a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hyperscale.executors.messages import Order, Report


class WorkerLostError(Exception):
    """A worker is gone.

    Attributes:
        is_innocent: Whether what it had cannot have been the cause, as where its machine was taken away.
    """

    def __init__(self, reason: str, *, is_innocent: bool = False) -> None:
        super().__init__(reason)
        self.is_innocent = is_innocent


@dataclass(frozen=True)
class EngineResources:
    """What one engine takes.

    Attributes:
        gpus: Number of GPUs; 0 on the CPU.
        cpus: Number of CPU cores that it computes with on the CPU; None for its part of the machine's.
    """

    gpus: int = 0
    cpus: int | None = None


class WorkerHandle(ABC):
    """The near end of an `EngineWorker`.

    Attributes:
        number: Its number; a worker that takes another's place has a new one.
        is_here: Whether its process has started; until then it is given nothing.
    """

    number: int
    is_here: bool = False

    @abstractmethod
    def give(self, order: Order) -> None:
        """Send requests; a worker that is gone takes them without a word, and the next `take` tells."""

    @abstractmethod
    def take(self) -> list[Report]:
        """The reports that have come; does not wait.

        Raises:
            WorkerLostError: It is gone, and all its reports have been taken.
        """

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def close(self) -> None:
        """Ask it to end by itself; it has nothing to do any more."""


class Executor(ABC):
    """Places workers, and waits for news of any.

    Attributes:
        name: The name that ``--executor`` takes.
    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, number: int) -> WorkerHandle:
        """A new worker; its process may take a while to be there, or to find room.

        Raises:
            EngineError: It cannot be started.
        """

    @abstractmethod
    def wait(self, workers: Sequence[WorkerHandle], timeout: float) -> None:
        """Return when one of the workers has something to take, or after so many seconds."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the executor holds; all workers are closed or killed by then."""
