"""Verifies that chains were compressed as their method's rule says, by the entries that they held and read.

The ledger counts what every chain held and read; a method's rule gives the most that may be (`Method.allowance`). A
chain that exceeds it by more than `SLACK` ends the run, whose costs would not be those of the method it names. Rules
that give no number, as those of trained gates, are compared with their nominal ratio instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hyperscale.errors import VerificationError
from hyperscale.kv.trace import budgeted_reads, dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.samples import Ending, Sample, ScoredOption

if TYPE_CHECKING:
    from hyperscale.methods.core.base import Method

SLACK = 0.05
"""Share by which a chain may exceed the entries that its rule allows."""
WEAK = 0.8
"""Share of the nominal ratio below which the realised one is pointed out."""
STRONG = 1.5
"""Multiple of the nominal ratio above which the realised one is pointed out."""
_SAVED = 0.5
"""Share of the reads to be saved below which those saved are pointed out: it decides for ratios near 1."""


@dataclass(frozen=True)
class Usage:
    """Entries that a chain held or read, beside those that its rule allows; means over layers and KV heads.

    Attributes:
        kind: "held": the peak up to the cut. "read": in a step, mean over the steps since the cut before.
        tokens: Generated tokens at the cut.
        entries: Entries held or read.
        allowance: Entries that the rule allows.
    """

    kind: Literal["held", "read"]
    tokens: int
    entries: float
    allowance: int

    @property
    def share(self) -> float:
        """Entries / allowance."""
        return self.entries / self.allowance


@dataclass(frozen=True)
class Compression:
    """The compression that an arm realised.

    Attributes:
        arm: The method and its nominal ratio.
        chains: Number of chains.
        realised_cr: Reads of a full cache / reads, over all chains; NaN if nothing was read.
        peak_cr: Peaks of a full cache / peaks, over all chains.
        budget_used: Largest `Usage.share` of any chain; None if the rule gives no number.
        nominal_cr: The ratio asked for. Of a budget in tokens: that of the same chains if no row ever held more.
    """

    arm: Arm
    chains: int
    realised_cr: float
    peak_cr: float
    budget_used: float | None
    nominal_cr: float

    @property
    def weak(self) -> bool:
        """Whether the ratio realised falls short of the nominal one.

        A rule whose budget follows from L falls short where chains end early, one that pins the prompt where prompts
        are long: the chains kept to the rule (`budget_used`), and yet cost more than the nominal ratio says.
        """
        saved, asked = 1 - 1 / self.realised_cr, 1 - 1 / self.nominal_cr
        return self.realised_cr < WEAK * self.nominal_cr or saved < _SAVED * asked

    @property
    def strong(self) -> bool:
        """Whether the ratio realised goes far beyond the nominal one."""
        return self.realised_cr > STRONG * self.nominal_cr

    @property
    def unused(self) -> bool:
        """Whether a budget in tokens is more than any chain needed, so that nothing had to be evicted."""
        return self.arm.kv_budget > 0 and self.nominal_cr == 1


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
    worst = max(usages(method, sample, room), key=lambda usage: usage.share, default=None)
    if worst is None or worst.share <= 1 + SLACK:
        return
    verb = "held" if worst.kind == "held" else "read in a step"
    raise VerificationError(
        f"{arm} did not compress as asked: on {sample.task}/{sample.problem}, chain {sample.chain}, it {verb} "
        f"{worst.entries:,.1f} entries within {worst.tokens:,} tokens where its rule allows {worst.allowance:,} "
        f"({worst.share:.0%}); finished chains are kept, but theirs are not the costs of {arm}: mend the method, or "
        "leave it out with --method"
    )


def usages(method: "Method", sample: Sample, room: int) -> Iterator[Usage]:
    """Entries that a chain, and each answer forced upon it, held and read, at every cut; none if the rule says nothing.

    Args:
        method: The chain's method.
        sample: The chain.
        room: As for `check`.
    """
    if sample.options:
        for option in sample.options:
            yield from _usages_of_option(method, option)
        return
    # Forced answers start from the cut that they follow, the next cut goes on from there as if there were none.
    before = 1, 0.0  # the first token comes from the prefill, whose reads do not count
    for cut in sample.cuts:
        yield from _usages_at(method, sample, before, cut, room)
        before = cut.tokens, cut.kv_reads
        if cut.forced is not None:
            yield from _usages_at(method, sample, before, cut.forced, room)


def _usages_at(
    method: "Method", sample: Sample, before: tuple[int, float], ending: Ending, room: int
) -> Iterator[Usage]:
    """What a chain held up to an ending, and read in a step since ``before``: tokens and reads of an earlier one."""
    allowance = method.allowance(sample.prompt_tokens, ending.tokens, sample.L + room)
    if allowance is None:
        return
    if method.kind != "selector":  # which holds all and reads some
        yield Usage("held", ending.tokens, ending.peak_kv, allowance)
    tokens, reads = before
    if ending.tokens > tokens:
        yield Usage("read", ending.tokens, (ending.kv_reads - reads) / (ending.tokens - tokens), allowance)


def _usages_of_option(method: "Method", option: ScoredOption) -> Iterator[Usage]:
    """What was held and read while an option was scored, whose tokens are its L."""
    allowance = method.allowance(option.prompt_tokens, option.tokens, option.tokens) if option.tokens else None
    if allowance is None:
        return
    if method.kind != "selector":
        yield Usage("held", option.tokens, option.peak_kv, allowance)
    if option.tokens > 1:
        yield Usage("read", option.tokens, option.kv_reads / (option.tokens - 1), allowance)


def summarize_compression(methods: "Mapping[Arm, Method]", samples: Iterable[Sample], room: int) -> list[Compression]:
    """The realised compression of each arm that has chains.

    Args:
        methods: Each arm's method.
        samples: All chains; they are looked at one at a time.
        room: As for `check`.
    """
    totals: dict[Arm, _Totals] = {}  # sums only: the chains pass by once
    for sample in samples:
        if (method := methods.get(sample.arm)) is not None:
            totals.setdefault(sample.arm, _Totals()).add(sample, usages(method, sample, room))
    return [totals[arm].compression(arm) for arm in methods if arm in totals]


@dataclass
class _Totals:
    """Sums over an arm's chains."""

    chains: int = 0
    reads: float = 0.0
    peaks: float = 0.0
    dense_reads: int = 0
    dense_peaks: int = 0
    budgeted_reads: int = 0
    budget_used: float | None = None

    def add(self, sample: Sample, usages: Iterable[Usage]) -> None:
        """Count one chain."""
        self.chains += 1
        self.reads += sample.whole.kv_reads
        self.peaks += sample.whole.peak_kv
        self.dense_reads += sum(dense_reads(prompt, tokens) for prompt, tokens in sample.sequences)
        self.dense_peaks += max(dense_peak(prompt, tokens) for prompt, tokens in sample.sequences)
        self.budgeted_reads += sum(
            budgeted_reads(prompt, tokens, sample.kv_budget) for prompt, tokens in sample.sequences
        )
        shares = [usage.share for usage in usages] + ([] if self.budget_used is None else [self.budget_used])
        self.budget_used = max(shares, default=None)

    def compression(self, arm: Arm) -> Compression:
        """What the sums come to."""
        realised_cr = self.dense_reads / self.reads if self.reads else float("nan")
        peak_cr = self.dense_peaks / self.peaks if self.peaks else float("nan")
        nominal_cr = arm.CR
        if arm.kv_budget:
            nominal_cr = self.dense_reads / self.budgeted_reads if self.budgeted_reads else float("nan")
        return Compression(arm, self.chains, realised_cr, peak_cr, self.budget_used, nominal_cr)
