"""What went wrong while engines worked side by side, and was mended or given up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """An engine that was lost, or a problem that was given up.

    Attributes:
        reason: What happened, in words.
        place: Name of the machine; empty if it is not known.
        requests: How many chains went back to the queue, of a lost engine, or are given up.
        problem: The problem that was given up, as in the requests; None for a lost engine.
    """

    reason: str
    place: str = ""
    requests: int = 0
    problem: str | None = None

    def __str__(self) -> str:
        where = f" on {self.place}" if self.place else ""
        if self.problem is not None:
            return f"{self.problem} was given up: {self.reason}{where}"
        return f"an engine was lost{where} ({self.reason}): {self.requests} chains go back to the queue"
