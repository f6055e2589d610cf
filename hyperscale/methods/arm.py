"""A method at a compression ratio: what a run compares."""

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Arm:
    """A method at one nominal CR; two arms are the same if both agree.

    Attributes:
        method: The method's name.
        CR: Nominal compression ratio.
        length_invariant: Whether a chain cut to L is the chain that a run with maximum L would give.
    """

    method: str
    CR: float
    length_invariant: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return self.method if self.CR == 1 else f"{self.method} {self.CR:g}×"
