"""Costs of a point in closed form: what chains that all run to L read, hold and generate.

The closed form is that of an uncompressed cache (`kv.trace`), divided by the CR; `prediction` uses measured chains
instead where there are any.
"""

import math
from dataclasses import dataclass
from typing import Self

from hyperscale.kv.trace import budgeted_reads, dense_peak, dense_reads

AXES = ("kv_reads", "peak_kv", "peak_bytes", "tokens", "seconds")
CLOSED_FORM_AXES = AXES[:4]  # seconds have no closed form: they depend on the machine


@dataclass(frozen=True)
class TaskShape:
    """What the closed form needs to know of a task.

    Attributes:
        name: The task.
        prompt_tokens: Mean prompt length of the problems that run, in tokens.
        base_length: L of the base point, in tokens.
        lengths: L of the candidates, in tokens, ascending.
        answer: Tokens that a forced answer adds at most to a chain that has not ended at L; the base point has none.
        options: Texts that a problem has scored, in the mean; 0 for generated ones. Where there are some, W is 1, and L
            is for all of them together.
    """

    name: str
    prompt_tokens: int
    base_length: int
    lengths: tuple[int, ...]
    answer: int = 0
    options: float = 0


@dataclass(frozen=True)
class Costs:
    """Predicted costs of a point, per problem.

    Attributes:
        kv_reads: Entries read in decoding, summed over the W chains.
        peak_kv: Largest number of live entries, summed over the W chains.
        peak_bytes: The same in bytes, summed over layers and KV heads.
        tokens: Generated tokens.
        seconds: Time in the batch, summed over the W chains, as in ``points.csv``; None if no speed is known.
    """

    kv_reads: float
    peak_kv: float
    peak_bytes: float
    tokens: float
    seconds: float | None = None

    @classmethod
    def predict(
        cls,
        task: TaskShape,
        W: int,
        L: int,
        CR: float,
        entry_bytes: int,
        kv_budget: int = 0,
        *,
        evicts: bool = True,
    ) -> Self:
        """Closed form: chains that all run to L, cache entries divided by the CR, or at most a budget in tokens.

        ``entry_bytes`` is the size of one (key, value) pair summed over layers and KV heads. What a method that does
        not evict leaves unread is held all the same.
        """
        # Options have a cache each, and share the tokens.
        count = max(task.options, 1)
        tokens = max(round(L / count), 1)
        reads, peak = count * dense_reads(task.prompt_tokens, tokens), float(dense_peak(task.prompt_tokens, tokens))
        if kv_budget:
            reads = count * budgeted_reads(task.prompt_tokens, tokens, kv_budget)
            peak = min(peak, kv_budget) if evicts else peak
        # A ratio is taken to divide reads and peak alike, at every length.
        reads, peak = W * reads / CR, W * peak / (CR if evicts else 1)
        return cls(reads, peak, peak * entry_bytes, float(W * L))

    def on(self, axis: str) -> float:
        """The cost on one of `AXES`; NaN if it is not known."""
        value = getattr(self, axis)
        return math.nan if value is None else float(value)

    def times(self, width: float) -> Self:
        """The costs of ``width`` times as many chains that cost as much each."""
        seconds = None if self.seconds is None else width * self.seconds
        return type(self)(
            width * self.kv_reads, width * self.peak_kv, width * self.peak_bytes, width * self.tokens, seconds
        )
