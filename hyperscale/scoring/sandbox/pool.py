"""Runs model-written programs in a pool of warm sandboxed workers, and says what each of their tests gave.

Where the programs run is `sandbox.choose`'s matter. A worker forks once per test; the fork has limits on CPU time, wall
time, memory, processes, output and disk. Expected outputs never enter a worker: graders compare them out here.
"""

import atexit
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.program import Limits, Outcome, Program, Status
from hyperscale.scoring.sandbox.worker import Worker, WorkerDiedError

_MOST_WORKERS = 8
_BUILT_IN = {"code"}  # the graders of the built-in tasks


class CodeRunner:
    """A pool of workers, started at first use and replaced when they die.

    Args:
        seconds: CPU time of one test of the programs of `run`.
        memory: Their address space in bytes.
        sandbox: As `sandbox.choose` takes it, and ``trusted`` too.
        trusted: Whether the programs answer the built-in tasks alone.
        workers: Programs that run at the same time; by default one for each core, at most 8.

    Raises:
        SandboxError, ConfigError: As `sandbox.choose`, at first use.
    """

    def __init__(
        self,
        seconds: float = 2.0,
        memory: int = 512 << 20,
        *,
        sandbox: str = "auto",
        trusted: bool = False,
        workers: int | None = None,
    ) -> None:
        self.limits = Limits(seconds=seconds, memory=memory)
        self.workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
        self._sandbox, self._trusted = sandbox, trusted
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._started = 0

    def run_many(self, programs: Sequence[Program]) -> list[list[Outcome]]:
        """Run programs on their tests, several at a time.

        Returns:
            For each program, for each of its tests, what it gave.

        Raises:
            SandboxError, ConfigError: There is no sandbox here.
        """
        with self._lock:
            level = self.level()
            waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
            for index in range(len(programs)):
                waiting.put(index)
            found: dict[int, list[Outcome]] = {}
            failures: list[BaseException] = []

            def work() -> None:
                hand = _Hand(self, level)
                try:
                    while not failures:
                        index = waiting.get_nowait()
                        found[index] = hand.outcomes(programs[index])
                except queue.Empty:
                    pass
                except BaseException as error:
                    failures.append(error)
                finally:
                    hand.put_back()

            _together(work, min(self.workers, len(programs)))
            if failures:
                raise failures[0]
            return [found[index] for index in range(len(programs))]

    def run(self, jobs: Sequence[tuple[str, Sequence[Any]]]) -> list[list[str | None]]:
        """Run each program's function ``f`` on each of its inputs, up to the first that gives nothing.

        Args:
            jobs: (program, inputs); inputs are JSON-able, each is passed as ``f``'s one argument.

        Returns:
            For each job, for each input, the returned value as JSON, or None if there is none.
        """
        programs = [
            Program(source, tuple((value,) for value in inputs), limits=self.limits, stop_at_failure=True)
            for source, inputs in jobs
        ]
        return [
            [json.dumps(outcome.output) if outcome.status == "ok" else None for outcome in outcomes]
            for outcomes in self.run_many(programs)
        ]

    def level(self) -> str:
        """The level programs run at; what is to be said about it is said once.

        Raises:
            SandboxError, ConfigError: As `sandbox.choose`.
        """
        chosen = choose.choose(self._sandbox, self._trusted)
        choose.tell(chosen.note)
        return chosen.level

    def take(self, level: str) -> Worker:
        """A worker that nobody else uses, warm if there is one."""
        while self._idle:
            try:
                worker = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if worker.alive():
                return worker
            worker.close()
        self._started += 1
        return Worker(level, self._started)

    def put_back(self, worker: Worker) -> None:
        """Keep a worker for the next program."""
        self._idle.append(worker)

    def close(self) -> None:
        """Kill the workers with all they started and remove their folders; the next call starts new ones."""
        while self._idle:
            self._idle.pop().close()


class _Hand:
    """One thread's hold on a worker."""

    def __init__(self, runner: CodeRunner, level: str) -> None:
        self._runner, self._level = runner, level
        self._worker: Worker | None = None

    def outcomes(self, program: Program) -> list[Outcome]:
        """One program's outcomes. A worker that dies is no verdict: the test gets a second chance with a new one."""
        found: list[Outcome] = []
        deaths = 0
        while len(found) < len(program.tests):
            rest = replace(program, tests=program.tests[len(found) :])
            try:
                for outcome in self._ask(rest):
                    found.append(outcome)
                    deaths = 0
            except WorkerDiedError:
                self._drop()
                deaths += 1
                if deaths > 1:
                    found.append(Outcome("killed"))
                    deaths = 0
            if program.stop_at_failure and any(outcome.status != "ok" for outcome in found):
                found += [Outcome("skipped")] * (len(program.tests) - len(found))
        return found

    def _ask(self, program: Program) -> Iterator[Outcome]:
        if self._worker is None:
            self._worker = self._runner.take(self._level)
        self._worker.send(program)
        for _ in program.tests:
            yield _outcome(program, *self._worker.answer(program.limits.wall_seconds))

    def put_back(self) -> None:
        """Leave the worker to others."""
        if self._worker is not None:
            self._runner.put_back(self._worker)

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _outcome(program: Program, status: str, text: str) -> Outcome:
    if status != "ok":
        return Outcome(cast("Status", status))
    if program.kind == "stdin":
        return Outcome("ok", text)
    try:
        return Outcome("ok", json.loads(text))  # the text is the program's own and may be anything
    except (ValueError, RecursionError):
        return Outcome("error")


def _together(work: Callable[[], None], count: int) -> None:
    """Run a function in several threads, one of them this one."""
    others = [threading.Thread(target=work, daemon=True) for _ in range(count - 1)]
    for thread in others:
        thread.start()
    if count:
        work()
    for thread in others:
        thread.join()


_shared: dict[tuple[str, bool], CodeRunner] = {}
_policy = ("auto", False)


def use(sandbox: str, trusted: bool) -> None:
    """Say where the programs of `shared_runner` run from now on; arguments as `sandbox.choose` takes them."""
    global _policy
    _policy = (sandbox, trusted)


def settle(graders: set[str], sandbox: str = "auto") -> str | None:
    """Choose where the programs of `shared_runner` run, before anything is generated.

    Args:
        graders: The graders of a run that run programs.
        sandbox: What the user asked for.

    Returns:
        The level; None if no grader runs programs.

    Raises:
        SandboxError, ConfigError: As `sandbox.choose`.
    """
    if not graders:
        return None
    use(sandbox, trusted=graders <= _BUILT_IN)
    return shared_runner().level()


def shared_runner() -> CodeRunner:
    """This process's one runner with default limits, closed at exit."""
    if _policy not in _shared:
        name, trusted = _policy
        _shared[_policy] = runner = CodeRunner(sandbox=name, trusted=trusted)
        atexit.register(runner.close)
    return _shared[_policy]
