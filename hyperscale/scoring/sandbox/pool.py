"""Runs model-written programs in a pool of warm sandboxed workers and returns the outcome of each test.

`hyperscale.scoring.sandbox.choose` decides at which level the workers run. A worker forks once per test; the fork has
limits on CPU time, wall time, memory, processes, output and disk. Expected outputs never enter a worker: graders
compare them out here, and outputs are all that comes back.
"""

import atexit
import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Sequence

from hyperscale.scoring.sandbox import choose
from hyperscale.scoring.sandbox.program import Limits, Outcome, Program, Status
from hyperscale.scoring.sandbox.worker import OpenProgram, SandboxWorker, WorkerDiedError

_MAX_WORKERS = 8
_MAX_DIGITS = 50_001  # of an integer that a function returns, sign included; longer ones take too long to read
_BUILT_IN = {"code"}  # the graders of the built-in tasks


class CodeRunner:
    """A pool of workers, started at first use and replaced when they die.

    Args:
        seconds: CPU time of one test, where a grader has no limits of its own.
        memory: Address space of one test in bytes, likewise.
        sandbox: Level, as `choose.choose_level` takes it.
        trusted: Whether the programs are the built-in model's, for its own tasks.
        workers: Programs that run at the same time; by default one for each core, at most 8.

    Raises:
        SandboxError, ConfigError: As `choose.choose_level`, at first use.
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
        self.workers = workers or min(os.cpu_count() or 1, _MAX_WORKERS)
        self._sandbox, self._trusted = sandbox, trusted
        self._lock = threading.Lock()  # one `run_many` at a time
        self._idle: list[SandboxWorker] = []
        self._started = 0

    def run_many(self, programs: Sequence[Program]) -> list[list[Outcome]]:
        """Run programs on their tests, several at a time.

        Returns:
            For each program, the outcome of each of its tests.

        Raises:
            SandboxError, ConfigError: There is no sandbox here.
        """
        with self._lock:
            level = self.choose_level()
            waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
            for index in range(len(programs)):
                waiting.put(index)
            outcomes: dict[int, list[Outcome]] = {}
            failures: list[BaseException] = []

            # Each thread holds one worker and takes programs until none is waiting. The threads only wait for pipes,
            # so Python's lock between threads costs nothing here.
            def run_waiting() -> None:
                lease = _WorkerLease(self, level)
                try:
                    while not failures:
                        index = waiting.get_nowait()
                        outcomes[index] = lease.run(programs[index])
                except queue.Empty:
                    pass
                except BaseException as error:  # an exception in a thread would be lost: the caller raises it below
                    failures.append(error)
                finally:
                    lease.end()

            _run_in_threads(run_waiting, min(self.workers, len(programs)))
            if failures:
                raise failures[0]
            return [outcomes[index] for index in range(len(programs))]

    def choose_level(self) -> str:
        """The level programs run at; a note about it is printed once.

        Raises:
            SandboxError, ConfigError: As `choose.choose_level`.
        """
        sandbox = choose.choose_level(self._sandbox, self._trusted)
        choose.print_note_once(sandbox.note)
        return sandbox.level

    def take_worker(self, level: str) -> SandboxWorker:
        """A worker that no other thread uses, warm if there is one."""
        while self._idle:
            try:
                worker = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if worker.alive():
                return worker
            worker.close()
        self._started += 1
        return SandboxWorker(level, self._started)

    def return_worker(self, worker: SandboxWorker) -> None:
        """Keep a worker for the next program."""
        self._idle.append(worker)

    def close(self) -> None:
        """Kill the workers with all they started and remove their folders; the next call starts new ones."""
        while self._idle:
            self._idle.pop().close()


class _WorkerLease:
    """The worker that one thread holds: taken from the pool when first needed, replaced when it dies."""

    def __init__(self, runner: CodeRunner, level: str) -> None:
        self._runner, self._level = runner, level
        self._worker: SandboxWorker | None = None

    def run(self, program: Program) -> list[Outcome]:
        """The outcomes of a program's tests.

        A worker that dies says nothing about the program (the system may have killed it): the test runs once more in a
        new worker. If that one dies too, the outcome is "killed", and the tests after it still run.
        """
        outcomes: list[Outcome] = []
        with contextlib.closing(OpenProgram(program)) as opened:
            for index in range(len(program.tests)):
                outcome = self._run_test(opened, index)
                outcomes.append(outcome)
                if program.stop_at_failure and outcome.status != "ok":
                    break
        return outcomes + [Outcome("skipped")] * (len(program.tests) - len(outcomes))

    def _run_test(self, opened: OpenProgram, index: int) -> Outcome:
        for _ in range(2):
            if self._worker is None or not self._worker.alive():
                self._drop_worker()
                self._worker = self._runner.take_worker(self._level)
            try:
                return _read_outcome(opened.program, *self._worker.run_test(opened, index))
            except WorkerDiedError:
                self._drop_worker()
            except BaseException:  # Ctrl-C, for one, after which a notebook goes on: the test may still run
                self._drop_worker()
                raise
        return Outcome("killed")

    def end(self) -> None:
        """Return the worker to the pool."""
        if self._worker is not None:
            self._runner.return_worker(self._worker)

    def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def _read_outcome(program: Program, status: Status, data: bytes) -> Outcome:
    if status != "ok":
        return Outcome(status)
    text = data.decode("utf-8", "surrogateescape")
    if program.kind == "stdin":
        return Outcome("ok", text)
    try:
        return Outcome("ok", json.loads(text, parse_int=_read_integer))  # the program's own: it may be anything
    except (ValueError, RecursionError):
        return Outcome("error")


def _read_integer(text: str) -> int:
    """An integer of any length: how long one may be is the program's limit, not that of this process."""
    limit = 4000  # digits that Python reads at once, whatever its own limit is set to
    if len(text) <= limit:
        return int(text)
    if len(text) > _MAX_DIGITS:
        raise ValueError("an integer too long to be an answer")
    sign, digits, value = (-1, text[1:], 0) if text[0] == "-" else (1, text, 0)
    for start in range(0, len(digits), limit):
        part = digits[start : start + limit]
        value = value * 10 ** len(part) + int(part)
    return sign * value


def _run_in_threads(function: Callable[[], None], count: int) -> None:
    """Run a function in several threads, one of them this one."""
    threads = [threading.Thread(target=function, daemon=True) for _ in range(count - 1)]
    for thread in threads:
        thread.start()
    if count:
        function()
    for thread in threads:
        thread.join()


# One runner for each (sandbox, trusted) that this process has graded with; `_policy` names the one in use.
_runners: dict[tuple[str, bool], CodeRunner] = {}
_policy = ("auto", False)


def choose_shared_level(graders: set[str], sandbox: str = "auto", built_in_model: bool = False) -> str | None:
    """Choose the level at which the programs of `get_shared_runner` run, before anything is generated.

    Args:
        graders: The graders of a run that run programs.
        sandbox: The level the user requested, as `choose.choose_level` takes it.
        built_in_model: Whether the built-in model wrote the programs; no other's run at ``guard``.

    Returns:
        The level; None if no grader runs programs.

    Raises:
        SandboxError, ConfigError: As `choose.choose_level`.
    """
    global _policy
    if not graders:
        return None
    _policy = (sandbox, built_in_model and graders <= _BUILT_IN)
    return get_shared_runner().choose_level()


def get_shared_runner() -> CodeRunner:
    """This process's runner with default limits, closed at exit."""
    if _policy not in _runners:
        sandbox, trusted = _policy
        _runners[_policy] = runner = CodeRunner(sandbox=sandbox, trusted=trusted)
        atexit.register(runner.close)
    return _runners[_policy]
