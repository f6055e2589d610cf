"""Decides which engine of a pool generates what, and what becomes of requests whose engine is lost.

It knows no processes and no clocks: the same rules run in a simulation (`benchmarks/executor_scaling.py`).

- Requests go out in the order given, so the caller puts the longest first: what runs last is short, and engines end
  together (longest processing time first; Graham 1969, "Bounds on multiprocessing timing anomalies", SIAM J. Appl.
  Math. 17(2)).
- An engine gets what fills its batch and a few more, so that it need not wait for its next request; towards the end
  no more than its share of what is unfinished. Engines take turns, a problem each.
- Requests of a lost engine go first again. Each of their problems gets a strike; a problem with two of them is run
  when nothing else is, by an engine of its own, so that only it can be to blame for a third. A finished chain clears
  its problem.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from math import ceil

from hyperscale.engines.base import Request

MAX_STRIKES = 3
"""Engines that a problem may take with it before it is given up."""
_LONELY_STRIKES = 2  # from which on a problem runs alone

_ChainKey = tuple[str, int]  # problem and chain


class Dispatcher:
    """The requests of one job: waiting, with an engine, or done.

    Attributes:
        capacity: Chains that decode together in one engine.
    """

    def __init__(self, requests: Iterable[Request], capacity: int) -> None:
        self.capacity = capacity
        self._waiting: deque[Request] = deque(requests)
        self._suspects: dict[str, list[Request]] = {}  # by problem, of those with strikes enough
        self._given: dict[Hashable, dict[_ChainKey, Request]] = {}  # by engine
        self._alone: set[Hashable] = set()  # engines that have a suspect
        self._strikes: dict[str, int] = {}
        self._given_up: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether every request is finished or given up."""
        return not (self._waiting or self._suspects or any(self._given.values()))

    @property
    def has_waiting(self) -> bool:
        """Whether requests wait that any engine may take."""
        return bool(self._waiting)

    @property
    def unfinished(self) -> int:
        """Requests that are neither finished nor given up."""
        given = sum(map(len, self._given.values()))
        return len(self._waiting) + sum(map(len, self._suspects.values())) + given

    def count_given(self, engine: Hashable) -> int:
        """Requests that an engine has and has not finished."""
        return len(self._given.get(engine, ()))

    def take(self, engine: Hashable, engines: int) -> tuple[Request, ...]:
        """What an engine is to have next: chains of one problem, or nothing if it has enough.

        Asked in turns until all have enough, engines get problems as players get cards: the longest do not meet in one.

        Args:
            engine: Any name for it.
            engines: How many there are, those that are just starting among them.
        """
        given = self._given.setdefault(engine, {})
        if engine in self._alone:
            if given:
                return ()
            self._alone.discard(engine)
        if not self._waiting:
            return self._take_suspect(engine) if not given else ()
        # A few beyond the batch wait at the engine, so that a place that becomes free is filled at once.
        spare = max(1, self.capacity // 4)
        share = ceil(self.unfinished / max(engines, 1))
        count = min(self.capacity + spare, share) - len(given)
        taken: list[Request] = []
        # Chains of a problem stay together where they can: they share a prefill.
        while len(taken) < count and self._waiting:
            if taken and self._waiting[0].problem != taken[0].problem:
                break
            taken.append(self._waiting.popleft())
        given.update((_key(request), request) for request in taken)
        return tuple(taken)

    def _take_suspect(self, engine: Hashable) -> tuple[Request, ...]:
        if not self._suspects:
            return ()
        taken = tuple(self._suspects.pop(next(iter(self._suspects))))
        self._given[engine].update((_key(request), request) for request in taken)
        self._alone.add(engine)
        return taken

    def finish(self, engine: Hashable, problem: str, chain: int) -> bool:
        """A chain has finished; False if it is not waited for, as it came from an engine that was lost."""
        if self._given.get(engine, {}).pop((problem, chain), None) is None:
            return False
        if problem not in self._given_up:
            self._strikes.pop(problem, None)
        return True

    def lose(self, engine: Hashable) -> dict[str, int]:
        """An engine is gone with what it had.

        Returns:
            How many chains are given up of which problems: too many engines went with them.
        """
        lost = list(self._given.pop(engine, {}).values())
        was_alone = engine in self._alone
        self._alone.discard(engine)
        by_problem: dict[str, list[Request]] = {}
        for request in lost:
            by_problem.setdefault(request.problem, []).append(request)
        again: list[Request] = []
        given_up = {}
        for problem, requests in by_problem.items():
            strikes = self._strikes[problem] = self._strikes.get(problem, 0) + 1
            if strikes >= MAX_STRIKES and was_alone:
                given_up[problem] = len(requests) + self._give_up(problem)
            elif strikes >= _LONELY_STRIKES:
                self._suspects.setdefault(problem, []).extend([*requests, *self._withdraw(problem)])
            else:
                again += requests
        self._waiting.extendleft(reversed(again))
        return given_up

    def put_back(self, engine: Hashable) -> None:
        """An engine is gone through no fault of what it had, as with its machine or before it began."""
        self._waiting.extendleft(reversed(self._given.pop(engine, {}).values()))
        self._alone.discard(engine)

    def _withdraw(self, problem: str) -> Sequence[Request]:
        """Take the requests of a problem from those that wait."""
        found = [request for request in self._waiting if request.problem == problem]
        if found:
            self._waiting = deque(request for request in self._waiting if request.problem != problem)
        return found

    def _give_up(self, problem: str) -> int:
        """Drop the requests of a problem that no engine has; returns how many these are."""
        self._given_up.add(problem)
        return len(self._withdraw(problem)) + len(self._suspects.pop(problem, ()))


def _key(request: Request) -> _ChainKey:
    return request.problem, request.chain
