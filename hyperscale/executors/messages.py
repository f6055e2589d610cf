"""What a run and the far ends of its engines tell each other."""

from dataclasses import dataclass, field

from hyperscale.engines.base import Chain, Request, Sampling
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.errors import HyperscaleError


@dataclass(frozen=True)
class Job:
    """What the engines of a pool all do until its requests are done.

    Attributes:
        number: Its place among the pool's jobs.
        provider: Provider of the engine.
        spec: What the engine runs.
        whole: What the engine is built from if it has to be started: ``spec`` with the methods that follow in it.
        sampling: How tokens are drawn.
        is_watched: Whether every new token is told.
    """

    number: int
    provider: EngineProvider
    spec: EngineSpec
    whole: EngineSpec
    sampling: Sampling
    is_watched: bool = False


@dataclass(frozen=True)
class Order:
    """Requests for an engine.

    Attributes:
        job: What they belong to.
        requests: More of them.
        is_last: Whether no more are waiting: the engine need not keep room for others once it has drawn these. Some may
            come all the same, if another engine is lost.
    """

    job: Job
    requests: tuple[Request, ...]
    is_last: bool


@dataclass(frozen=True)
class FinishedChain:
    """A chain has finished."""

    job: int
    chain: Chain


@dataclass(frozen=True)
class NewToken:
    """A chain has one more token; the fields are those of `ChainProgress`."""

    job: int
    request: Request
    tokens: int
    entries: float
    text: str


@dataclass(frozen=True)
class EngineReady:
    """An engine is in memory; from now on it is expected to make steps."""

    job: int


@dataclass(frozen=True)
class EngineFailed:
    """An engine ended with an error, and its process with it.

    Attributes:
        error: The error, if it is one that a user can mend.
        text: It in words.
        is_final: Whether every other engine would fail as well, so that the run has to end.
    """

    text: str
    error: HyperscaleError | None = None
    is_final: bool = False


Event = FinishedChain | NewToken | EngineReady | EngineFailed


@dataclass(frozen=True)
class Report:
    """News of a worker, in the order of the events; sent when there is news, and every second.

    Attributes:
        place: Name of the machine.
        steps: Decode steps that the engine has made so far; an engine that hangs makes none.
        idle_seconds: Time so far in which the engine waited for requests of a job that had some waiting.
        events: What happened since the last report.
    """

    place: str
    steps: int
    idle_seconds: float = 0.0
    events: tuple[Event, ...] = field(default=())
