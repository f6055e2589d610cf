"""What each request read and held, from the workers' reports, by the ledger's definition of cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """What a request asks for in its ``kv_transfer_params``.

    Attributes:
        checkpoints: Numbers of tokens at which costs are wanted.
        key: Noise key of the rule that draws, a signed 64-bit number; None for the request's seed.
        follow: Whether costs are wanted with every token.
        ignored: Names of those above that came as something else. A request cannot be refused where they are read, and
            an error there would end the engine for all.
    """

    checkpoints: tuple[int, ...] = ()
    key: int | None = None
    follow: bool = False
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Any) -> "Asked":
        """Take what makes sense of what a client sent."""
        given = given if isinstance(given, Mapping) else {}
        points, key, follow = given.get("checkpoints") or (), given.get("key"), given.get("follow") or False
        good = {
            "checkpoints": isinstance(points, (list, tuple)) and all(map(_whole, points)),
            "key": key is None or (_whole(key) and -(1 << 63) <= key < 1 << 63),
            "follow": isinstance(follow, bool),
        }
        return cls(
            checkpoints=tuple(points) if good["checkpoints"] else (),
            key=key if good["key"] else None,
            follow=follow if good["follow"] else False,
            ignored=tuple(name for name, holds in good.items() if not holds),
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass
class Reads:
    """Costs of one request after each of its tokens.

    A step is known by the position of the token that it processed, not by what kind of step it was: position P - 1 is
    the end of prefill, whose reads do not count; every later one is a decode step, also where vLLM recomputes it as
    part of a chunk after a preemption, and then it counts once.

    Attributes:
        prompt: P, tokens of the prompt.
        rows: Layers times KV heads of the whole model.
        asked: What the request asks for.
        reads: Cumulative decode reads after each token, summed over rows.
        peaks: Largest number of live entries up to each token, likewise.
    """

    prompt: int
    rows: int
    asked: Asked = field(default_factory=Asked)
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
        at = sorted({n for n in self.asked.checkpoints if 0 < n < tokens} | {tokens})
        ignored = {"ignored": list(self.asked.ignored)} if self.asked.ignored else {}
        return {
            "tokens": tokens,
            "kv_reads": self.reads[tokens - 1] / self.rows,
            "peak_kv": self.peaks[tokens - 1] / self.rows,
            "marks": [[n, self.reads[n - 1] / self.rows, self.peaks[n - 1] / self.rows] for n in at],
            **ignored,
        }
