"""Defines what goes into the sandbox and what comes out: the interface between graders and code runner.

A grader hands `CodeRunner.run_many(programs)` programs with their test inputs and gets an `Outcome` for each test. It
compares outputs itself: expected outputs never enter the sandbox.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["functional", "stdin"]
Status = Literal["ok", "error", "timeout", "memory", "output", "killed", "skipped"]


@dataclass(frozen=True)
class Limits:
    """Resource limits of one test of a program.

    Attributes:
        seconds: CPU time.
        wall: Wall time in seconds; ``2 * seconds + 1`` if None, so that a busy machine turns no right program wrong.
        memory: Address space in bytes.
        output: Bytes of standard output, or of the returned value as JSON. `Program.outputs` allows some tests more.
    """

    seconds: float = 2.0
    wall: float | None = None
    memory: int = 512 << 20
    output: int = 1 << 20

    @property
    def wall_seconds(self) -> float:
        """Wall time in seconds."""
        return 2 * self.seconds + 1 if self.wall is None else self.wall


@dataclass(frozen=True)
class Program:
    """A model-written program and the inputs to run it on; every test runs in a process of its own.

    Attributes:
        source: Python source text.
        tests: For ``functional`` a sequence of arguments (JSON-able) per test; for ``stdin`` a text per test.
        kind: ``functional`` calls a function with the arguments; ``stdin`` runs the source as ``__main__``.
        function: Name of the function, or of the method of a class ``Solution`` if the source defines one that has it.
        limits: Of each test.
        stop_at_failure: Whether tests after the first that is not ``ok`` are skipped.
        outputs: Bytes that each test may write, where that is more than ``limits.output``; empty for none.
    """

    source: str
    tests: tuple[Any, ...]
    kind: Kind = "functional"
    function: str = "f"
    limits: Limits = field(default_factory=Limits)
    stop_at_failure: bool = False
    outputs: tuple[int, ...] = ()

    def output_limit(self, index: int) -> int:
        """Bytes that a test may write."""
        return max([self.limits.output, *self.outputs[index : index + 1]])


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test.

    Attributes:
        status: ``ok``; ``error`` (exception, no such function, a value JSON cannot hold); ``timeout``, ``memory``,
            ``output`` (a limit was reached); ``killed`` (ended by a signal); ``skipped`` (an earlier test failed).
        output: If ``ok``: the returned value after a round trip through JSON (tuples are lists), or the text written
            to standard output. None otherwise.
    """

    status: Status
    output: Any = None
