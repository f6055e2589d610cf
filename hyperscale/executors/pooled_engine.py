"""An engine made of engines: requests go to whichever has room, and chains come back as they finish.

Noise depends on (seed, problem, chain, step) alone, so a chain is the same whichever engine generates it, and again
after its engine was lost.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic

from hyperscale.engines.base import Chain, ChainProgress, Engine, Request, Sampling
from hyperscale.engines.provider import EngineProvider, EngineSpec
from hyperscale.errors import EngineError, HyperscaleError
from hyperscale.executors.dispatcher import MAX_STRIKES, Dispatcher
from hyperscale.executors.executor import Executor, WorkerHandle, WorkerLostError
from hyperscale.executors.faults import Fault
from hyperscale.executors.messages import EngineFailed, EngineReady, Event, FinishedChain, Job, NewToken, Order
from hyperscale.utils.hub import split_revision

STALL_SECONDS = 600.0
"""Default of the time without a decode step after which an engine is taken to hang."""
_START_SECONDS = 3600.0  # that an engine may take to load
_WAIT_SECONDS = 1.0
_SECONDS_FOR_ROOM = 60.0  # in which an engine is expected to find room; then others do its work, and the user is told
_MAX_LOSSES = 10  # engines that may be lost after each other without a chain finished in between


@dataclass
class _Member:
    """A worker as the pool sees it.

    Attributes:
        worker: Its near end.
        place: Name of its machine.
        ready_job: The last job that its engine was ready for; -1 for none.
        told_last: Whether it knows that no more requests are waiting, of the job at hand.
        steps: Steps of its engine by its last report.
        alive_time: When it last made a step, became ready or was given something, by `monotonic`.
        idle_seconds: See `Report`.
        asked_time: When it was asked for, by `monotonic`.
    """

    worker: WorkerHandle
    place: str = ""
    ready_job: int = -1
    told_last: bool = False
    steps: int = 0
    alive_time: float = field(default_factory=monotonic)
    idle_seconds: float = 0.0
    asked_time: float = field(default_factory=monotonic)


class PooledEngine(Engine):
    """Engines of one kind side by side; `use` says of which.

    Attributes:
        name: That of its engines.
        count: How many there are to be.
        faults: What went wrong so far; whoever reads them may empty the list.
        tell: Called with what a user should know at once, a sentence.
    """

    def __init__(self, executor: Executor, count: int, stall_seconds: float = STALL_SECONDS) -> None:
        """Prepare a pool; engines start with the first job.

        Args:
            executor: Places them.
            count: How many.
            stall_seconds: An engine that makes no decode step for so long is taken to hang, and replaced.
        """
        self.name, self.count, self.faults = "", count, list[Fault]()
        self.tell: Callable[[str], None] = lambda text: None
        self._told_missing = 0
        self._executor, self._stall_seconds = executor, stall_seconds
        self._members: list[_Member] = []
        self._numbers = 0
        self._jobs = 0
        self._losses = 0
        self._lost_idle_seconds = 0.0
        self._provider: EngineProvider | None = None
        self._spec: EngineSpec | None = None
        self._whole: EngineSpec | None = None

    @property
    def idle_seconds(self) -> float:
        """Time in which engines waited for a request while some were waiting, summed over engines."""
        return self._lost_idle_seconds + sum(member.idle_seconds for member in self._members)

    def use(self, provider: EngineProvider, spec: EngineSpec, whole: EngineSpec) -> None:
        """Say what the engines run from the next job on; see `EngineSlot.engine`."""
        self.name = provider.name
        self._provider, self._spec, self._whole = provider, _pin(spec), _pin(whole)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, watch: Callable[[ChainProgress], None] | None = None
    ) -> Iterator[Chain]:
        """See `Engine.generate`. Requests are best given with the longest first.

        Chains of a problem that takes `MAX_STRIKES` engines with it are not generated; ``faults`` tells.

        Raises:
            EngineError: Engines do not start, or are lost one after the other.
            HyperscaleError: Their model cannot be loaded, or a request has no meaning.
        """
        assert self._provider is not None
        assert self._spec is not None
        assert self._whole is not None
        self._jobs += 1
        job = Job(self._jobs, self._provider, self._spec, self._whole, sampling, watch is not None)
        capacity = self._spec.batch_size if self._provider.batches else 1
        dispatcher = Dispatcher(requests, capacity)
        for member in self._members:
            member.told_last = False
        try:
            while not dispatcher.is_done:
                self._start_missing(dispatcher)
                self._hand_out(job, dispatcher)
                self._executor.wait([member.worker for member in self._members], _WAIT_SECONDS)
                # Whoever takes the chains may be slow, as where grading is or the run was stopped for a while: an
                # engine that had no way to tell its steps meanwhile does not hang.
                now = monotonic()
                for member in list(self._members):
                    for event in self._news(member, dispatcher):
                        if (chain := self._handle(event, member, job, dispatcher, watch)) is not None:
                            yield chain
                self._replace_hung(job, dispatcher, now)
        finally:
            # Whatever ended this early: an engine in the middle of something is of no use to the next job.
            for member in [member for member in self._members if dispatcher.count_given(member.worker.number)]:
                self._drop(member)

    def _start_missing(self, dispatcher: Dispatcher) -> None:
        """Start as many workers as there is work for, up to the number asked for."""
        while len(self._members) < min(self.count, dispatcher.unfinished):
            self._numbers += 1
            self._members.append(_Member(self._executor.start(self._numbers)))

    def _hand_out(self, job: Job, dispatcher: Dispatcher) -> None:
        here = [member for member in self._members if member.worker.is_here]
        missing = [member for member in self._members if not member.worker.is_here]
        late = [member for member in missing if monotonic() - member.asked_time > _SECONDS_FOR_ROOM]
        self._tell_missing(len(late))
        for member in here:
            if not dispatcher.count_given(member.worker.number):
                member.alive_time = monotonic()  # it makes no steps because it has nothing to do
        taken: dict[int, list[Request]] = {member.worker.number: [] for member in here}
        hungry = here
        while hungry:
            for member in list(hungry):
                number = member.worker.number
                more = dispatcher.take(number, len(self._members) - len(late))
                taken[number] += more
                if not more:
                    hungry = [other for other in hungry if other is not member]
        for member in here:
            number = member.worker.number
            given = dispatcher.count_given(number)
            # One whose batch is not full is not to wait for requests that are kept for others: its chains would stop.
            is_last = not dispatcher.has_waiting or given < dispatcher.capacity
            if taken[number] or (is_last and not member.told_last and given):
                member.worker.give(Order(job, tuple(taken[number]), is_last))
                member.told_last = is_last
                member.alive_time = monotonic()  # it may have waited for this

    def _tell_missing(self, late: int) -> None:
        """Say that engines find no room, or that these came after all; once for each number of them."""
        if late == self._told_missing:
            return
        self._told_missing = late
        if late:
            meanwhile = "the others do their work" if late < len(self._members) else "nothing runs meanwhile"
            self.tell(
                f"{late} of {len(self._members)} engines did not start within {_SECONDS_FOR_ROOM:.0f} s, as where the "
                f"cluster has no room: {meanwhile}, and they start as soon as there is some"
            )
        else:
            self.tell("all engines have started")

    def _news(self, member: _Member, dispatcher: Dispatcher) -> list[Event]:
        """What a worker tells; if it is gone, it is dropped, with what it had."""
        try:
            reports = member.worker.take()
        except WorkerLostError as error:
            self._lose(member, dispatcher, str(error), is_innocent=error.is_innocent)
            return []
        for report in reports:
            if report.steps != member.steps:
                member.alive_time = monotonic()
            member.place, member.steps, member.idle_seconds = report.place, report.steps, report.idle_seconds
        return [event for report in reports for event in report.events]

    def _handle(
        self,
        event: Event,
        member: _Member,
        job: Job,
        dispatcher: Dispatcher,
        watch: Callable[[ChainProgress], None] | None,
    ) -> Chain | None:
        """Act on an event; returns the chain, if it is one that is waited for."""
        match event:
            case EngineReady(number):
                member.ready_job, member.alive_time = number, monotonic()
            case NewToken(number, request, tokens, entries, text) if number == job.number and watch is not None:
                watch(ChainProgress(request, tokens, entries, lambda: text))
            case FinishedChain(number, chain) if number == job.number:
                self._losses = 0
                if dispatcher.finish(member.worker.number, chain.problem, chain.chain):
                    return chain
            case EngineFailed(text, error, is_final):
                if is_final and error is not None:
                    raise _at(error, member.place)
                if member in self._members:
                    self._lose(member, dispatcher, text)
            case _:
                pass
        return None

    def _replace_hung(self, job: Job, dispatcher: Dispatcher, now: float) -> None:
        for member in list(self._members):
            if not dispatcher.count_given(member.worker.number):
                continue
            is_ready = member.ready_job == job.number
            limit = self._stall_seconds if is_ready else max(self._stall_seconds, _START_SECONDS)
            if now - member.alive_time > limit:
                doing = "no decode step" if is_ready else "not started"
                self._lose(member, dispatcher, f"{doing} for {limit:,.0f} s")

    def _lose(self, member: _Member, dispatcher: Dispatcher, reason: str, *, is_innocent: bool = False) -> None:
        """Drop a worker that is gone or of no use, and let others have its requests."""
        number = member.worker.number
        fault = Fault(reason, member.place, dispatcher.count_given(number))
        self.faults.append(fault)
        # An engine that never began cannot have been ended by what it was to begin with.
        if is_innocent or member.ready_job < 0:
            dispatcher.put_back(number)
            given_up = {}
        else:
            given_up = dispatcher.lose(number)
        lost_with_it = f"{MAX_STRIKES} engines were lost with it, the last: {reason}"
        self.faults += [
            replace(fault, reason=lost_with_it, chains=count, problem=problem) for problem, count in given_up.items()
        ]
        self._drop(member)
        self._losses += not is_innocent
        if self._losses > _MAX_LOSSES:
            raise EngineError(
                f"{self._losses} engines were lost after each other without a chain finished, the last one: {reason}; "
                "finished chains are kept: see what the engine printed, or run the same command with --engines 1"
            )

    def _drop(self, member: _Member) -> None:
        self._members.remove(member)
        self._lost_idle_seconds += member.idle_seconds
        with suppress(OSError):
            member.worker.kill()

    def close(self) -> None:
        """See `Engine.close`."""
        for member in self._members:
            member.worker.close()
        self._members.clear()
        self._executor.close()


def _pin(spec: EngineSpec) -> EngineSpec:
    """A checkpoint of the hub by its commit: another process, on another machine, loads what this one looked at."""
    name, revision = split_revision(spec.checkpoint)
    return replace(spec, checkpoint=f"{name}@{revision}" if revision else name)


def _at(error: HyperscaleError, place: str) -> HyperscaleError:
    """The error with the machine that it is from."""
    return type(error)(f"on {place}: {error}") if place else error
