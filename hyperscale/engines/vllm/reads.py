"""What each request read and held, from the workers' reports, by the ledger's definition of cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reads:
    """Costs of one request after each of its tokens.

    A step is known by the position of the token that it processed, not by what kind of step it was: position P - 1 is
    the end of prefill, whose reads do not count; every later one is a decode step, also where vLLM recomputes it as
    part of a chunk after a preemption, and then it counts once.

    Attributes:
        prompt: P, tokens of the prompt.
        rows: Layers times KV heads of the whole model.
        checkpoints: Numbers of tokens at which costs are wanted.
        reads: Cumulative decode reads after each token, summed over rows.
        peaks: Largest number of live entries up to each token, likewise.
    """

    prompt: int
    rows: int
    checkpoints: Sequence[int] = ()
    reads: list[int] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def count(self, covered: int, lives: Sequence[int]) -> None:
        """Book the last ``len(lives)`` positions before ``covered``, with the entries live at each, over all rows."""
        first = covered - len(lives)
        for position, live in enumerate(lives, first):
            token = position - (self.prompt - 1)
            if token != len(self.reads):
                assert token < len(self.reads), f"position {position} was never reported"
                continue
            self.reads.append(self.reads[-1] + live if self.reads else 0)
            self.peaks.append(max(self.peaks[-1], live) if self.peaks else live)

    def costs(self, tokens: int) -> dict[str, Any]:
        """Costs of the first ``tokens`` tokens, means over rows, JSON-able; empty if there are none."""
        tokens = min(tokens, len(self.reads))
        if not tokens:
            return {}
        at = sorted({n for n in self.checkpoints if 0 < n < tokens} | {tokens})
        return {
            "tokens": tokens,
            "kv_reads": self.reads[tokens - 1] / self.rows,
            "peak_kv": self.peaks[tokens - 1] / self.rows,
            "marks": [[n, self.reads[n - 1] / self.rows, self.peaks[n - 1] / self.rows] for n in at],
        }
