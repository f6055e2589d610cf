"""A method at a compression: what a run compares."""

from dataclasses import dataclass, field

from hyperscale.utils.quantities import format_length


@dataclass(frozen=True, order=True)
class Arm:
    """A method at one compression, a nominal CR or a budget in tokens; two arms are the same if all of it agrees.

    Attributes:
        method: The method's name.
        CR: Nominal compression ratio; 1 where a budget in tokens says how much is kept.
        kv_budget: Most entries of a row (one KV head of one layer) of a chain, in tokens; 0 where the CR says it.
        length_invariant: Whether a chain cut to L is the chain that a run with maximum L would give.
    """

    method: str
    CR: float
    kv_budget: int = field(default=0, kw_only=True)
    length_invariant: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        if self.kv_budget:
            return f"{self.method} {self.kv_budget} tokens"
        return self.method if self.CR == 1 else f"{self.method} {self.CR:g}×"


def point_label(W: int, L: int, CR: float, kv_budget: int = 0) -> str:
    """A point for people, W-L-CR: ``4-1K-8``; a budget in tokens takes the place of the CR, ``4-1K-64t``."""
    return f"{W}-{format_length(L)}-{compression_label(CR, kv_budget)}"


def compression_label(CR: float, kv_budget: int) -> str:
    """The compression as the end of a point's label W-L-CR: the ratio, or the budget in tokens as ``1024t``."""
    return f"{kv_budget}t" if kv_budget else f"{CR:g}"
