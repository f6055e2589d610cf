"""Whether the compression that a run asked for took place, judged by what its chains cost.

The ledger counts what every chain held and read; a method's rule says how much that may be (`Method.allowance`). A
chain beyond it by more than `SLACK` ends the run: its results would be those of another compression than the one named.
Rules that name no number, as those of trained gates, are compared with their nominal ratio.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyperscale.errors import VerificationError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.planning.arms import Arm

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method

Sample = Mapping[str, Any]

SLACK = 0.05
"""How far beyond its rule's number a chain may be."""
WEAK = 0.8
"""Share of the nominal ratio below which a rule without a number is remarked on."""


@dataclass(frozen=True)
class Use:
    """Entries against what the rule allows; both are means over layers and KV heads.

    Attributes:
        what: "held" at most up to so many tokens, or "read" in a step, mean over the steps since the checkpoint before.
        tokens: Generated tokens.
        entries: Entries.
        allowed: Entries by the rule.
    """

    what: str
    tokens: int
    entries: float
    allowed: int

    @property
    def share(self) -> float:
        """Entries / allowed."""
        return self.entries / self.allowed


@dataclass(frozen=True)
class Compression:
    """What became of an arm's compression ratio.

    Attributes:
        arm: The method and its nominal ratio.
        chains: Number of chains.
        realised: Reads of a full cache / reads, over all chains; NaN if nothing was read.
        peak: Peaks of a full cache / peaks, over all chains.
        used: Largest `Use.share` of any chain; None if the rule names no number.
    """

    arm: Arm
    chains: int
    realised: float
    peak: float
    used: float | None

    @property
    def weak(self) -> bool:
        """Whether a rule without a number fell short of its ratio."""
        return self.used is None and self.realised < WEAK * self.arm.CR


def check(arm: Arm, method: "Method", sample: Sample, room: int) -> None:
    """Refuse a finished chain that did not keep to its method's rule.

    Args:
        arm: The method at its ratio.
        method: The method.
        sample: The chain, a line of ``samples.jsonl``.
        room: Tokens that a forced answer adds to L at most.

    Raises:
        VerificationError: The chain held or read more than the rule allows, by more than `SLACK`.
    """
    most = max(uses(method, sample, room), key=lambda use: use.share, default=None)
    if most is None or most.share <= 1 + SLACK:
        return
    verb = "held" if most.what == "held" else "read in a step"
    raise VerificationError(
        f"{arm} did not compress as asked: on {sample['task']}/{sample['problem']}, chain {sample['chain']}, it {verb} "
        f"{most.entries:,.1f} entries within {most.tokens:,} tokens where its rule allows {most.allowed:,} "
        f"({most.share:.0%}); finished chains are kept, but theirs are not the costs of {arm}: mend the method, or "
        "leave it out with --method"
    )


def uses(method: "Method", sample: Sample, room: int) -> Iterator[Use]:
    """What a chain, and each of its forced answers, held and read against the rule, at every checkpoint."""
    prompt, limit = int(sample["prompt_tokens"]), int(sample["max_new_tokens"]) + room

    def between(start: int, read: float, end: int, reads: float, peak: float) -> Iterator[Use]:
        allowed = method.allowance(prompt, end, limit)
        if allowed is None:
            return
        if method.kind != "selector":
            yield Use("held", end, peak, allowed)
        if end > start:
            yield Use("read", end, (reads - read) / (end - start), allowed)

    marks = {
        int(n): (r, p) for n, r, p in zip(*(sample[name] for name in ("lengths", "kv_reads", "peak_kv")), strict=True)
    }
    start, read = 1, 0.0  # the first token comes from the prefill, whose reads do not count
    for end, (reads, peak) in marks.items():
        yield from between(start, read, end, reads, peak)
        start, read = end, reads
    for branch in sample.get("branches") or ():
        at = int(branch["at"])
        yield from between(at, marks[at][0], int(branch["tokens"]), branch["kv_reads"], branch["peak_kv"])


def summary(methods: "Mapping[Arm, Method]", samples: Sequence[Sample], room: int) -> list[Compression]:
    """The realised compression of each arm that has chains.

    Args:
        methods: Each arm's method.
        samples: All chains.
        room: As for `check`.
    """
    found = []
    for arm, method in methods.items():
        mine = [s for s in samples if (s["method"], float(s["CR"])) == (arm.method, arm.CR)]
        if not mine:
            continue
        reads, peaks = (sum(s[name][-1] for s in mine) for name in ("kv_reads", "peak_kv"))
        sizes = [(int(s["prompt_tokens"]), int(s["tokens"])) for s in mine]
        shares = [use.share for s in mine for use in uses(method, s, room)]
        found.append(
            Compression(
                arm,
                len(mine),
                sum(dense_reads(*size) for size in sizes) / reads if reads else float("nan"),
                sum(dense_peak(*size) for size in sizes) / peaks if peaks else float("nan"),
                max(shares, default=None),
            )
        )
    return found
