"""Whether the compression that a run asked for took place, judged by what its chains cost.

The ledger counts what every chain held and read; a method's rule says how much that may be (`Method.allowance`). A
chain beyond it by more than `SLACK` ends the run: its results would be those of another compression than the one named.
Rules that name no number, as those of trained gates, are compared with their nominal ratio.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperscale.errors import VerificationError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.samples import Ending, Sample

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method

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
        sample: The chain.
        room: Tokens that a forced answer adds to L at most.

    Raises:
        VerificationError: The chain held or read more than the rule allows, by more than `SLACK`.
    """
    most = max(uses(method, sample, room), key=lambda use: use.share, default=None)
    if most is None or most.share <= 1 + SLACK:
        return
    verb = "held" if most.what == "held" else "read in a step"
    raise VerificationError(
        f"{arm} did not compress as asked: on {sample.task}/{sample.problem}, chain {sample.chain}, it {verb} "
        f"{most.entries:,.1f} entries within {most.tokens:,} tokens where its rule allows {most.allowed:,} "
        f"({most.share:.0%}); finished chains are kept, but theirs are not the costs of {arm}: mend the method, or "
        "leave it out with --method"
    )


def uses(method: "Method", sample: Sample, room: int) -> Iterator[Use]:
    """What a chain, and each of its forced answers, held and read against the rule, at every checkpoint."""
    before = 1, 0.0  # the first token comes from the prefill, whose reads do not count
    for cut in sample.cuts:
        yield from _use(method, sample, before, cut, room)
        before = cut.tokens, cut.kv_reads
        if cut.forced is not None:
            yield from _use(method, sample, before, cut.forced, room)


def _use(method: "Method", sample: Sample, before: tuple[int, float], ending: Ending, room: int) -> Iterator[Use]:
    """What a chain held up to an ending, and read since ``before``, tokens and reads of an earlier one."""
    allowed = method.allowance(sample.prompt_tokens, ending.tokens, sample.L + room)
    if allowed is None:
        return
    if method.kind != "selector":
        yield Use("held", ending.tokens, ending.peak_kv, allowed)
    tokens, reads = before
    if ending.tokens > tokens:
        yield Use("read", ending.tokens, (ending.kv_reads - reads) / (ending.tokens - tokens), allowed)


def summary(methods: "Mapping[Arm, Method]", samples: Iterable[Sample], room: int) -> list[Compression]:
    """The realised compression of each arm that has chains.

    Args:
        methods: Each arm's method.
        samples: All chains; they are looked at one at a time.
        room: As for `check`.
    """
    totals: dict[Arm, _Totals] = {}
    for sample in samples:
        if (method := methods.get(sample.arm)) is not None:
            totals.setdefault(sample.arm, _Totals()).add(sample, uses(method, sample, room))
    return [totals[arm].compression(arm) for arm in methods if arm in totals]


@dataclass
class _Totals:
    """Sums over an arm's chains."""

    chains: int = 0
    reads: float = 0.0
    peaks: float = 0.0
    dense_reads: int = 0
    dense_peaks: int = 0
    used: float | None = None

    def add(self, sample: Sample, uses: Iterable[Use]) -> None:
        """Count one chain."""
        self.chains += 1
        self.reads += sample.whole.kv_reads
        self.peaks += sample.whole.peak_kv
        self.dense_reads += dense_reads(sample.prompt_tokens, sample.tokens)
        self.dense_peaks += dense_peak(sample.prompt_tokens, sample.tokens)
        shares = [use.share for use in uses] + ([] if self.used is None else [self.used])
        self.used = max(shares, default=None)

    def compression(self, arm: Arm) -> Compression:
        """What the sums come to."""
        realised = self.dense_reads / self.reads if self.reads else float("nan")
        peak = self.dense_peaks / self.peaks if self.peaks else float("nan")
        return Compression(arm, self.chains, realised, peak, self.used)
