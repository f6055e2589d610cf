"""Costs of finished chains at every L, of a pilot or of earlier runs, by which the costs of a plan are predicted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from hyperscale.errors import ResultsError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.manifest import POINTS, RUN_FILE, SAMPLES, complete_config, read_info
from hyperscale.results.sample_file import read_samples
from hyperscale.results.samples import Sample
from hyperscale.utils.files import hash_file

PILOT, EARLIER = "pilot", "earlier runs"
# Settings in which a planned run and one that it is predicted from may differ. Method, CR and task are compared chain
# by chain.
_FREE = {"methods", "budget", "axis", "tasks", "task_params", "lengths", "crs", "grid", "limit", "seeds", "params"}
_FREE |= {"device", "dtype", "predict"}

Key = tuple[Arm, str]
"""An arm, and the name of a task."""


class ChainCosts(NamedTuple):
    """Costs of one chain with at most so many tokens; reads and peak are means over layers and KV heads."""

    kv_reads: float
    peak_kv: float
    tokens: float
    seconds: float


@dataclass(frozen=True)
class MeasuredChain:
    """The costs of one finished chain at its cuts.

    Attributes:
        problem: Its problem.
        L: The most new tokens that it was allowed.
        cut_off: Whether L cut it off.
        prompt_tokens: Tokens of the prompt.
        lengths: Generated tokens at each cut, ascending; the last is the chain's own length.
        kv_reads: Reads up to each.
        peak_kv: Peak up to each.
        seconds: Time in the batch.
        timed: Whether that is the time of this machine.
    """

    problem: str
    L: int
    cut_off: bool
    prompt_tokens: int
    lengths: tuple[int, ...]
    kv_reads: tuple[float, ...]
    peak_kv: tuple[float, ...]
    seconds: float
    timed: bool = True

    @classmethod
    def of(cls, sample: Sample, *, timed: bool = True) -> Self:
        """The costs of a stored chain; ``timed`` if it ran on this machine."""
        return cls(
            problem=sample.problem,
            L=sample.L,
            cut_off=sample.finish == "length",
            prompt_tokens=sample.prompt_tokens,
            lengths=tuple(cut.tokens for cut in sample.cuts),
            kv_reads=tuple(cut.kv_reads for cut in sample.cuts),
            peak_kv=tuple(cut.peak_kv for cut in sample.cuts),
            seconds=sample.seconds,
            timed=timed,
        )

    def costs_at(self, L: int, room: int = 0) -> ChainCosts:
        """Costs of the chain with at most L tokens, and of a forced answer of ``room`` tokens if L cuts it off.

        Between two cuts the chain is assumed to read at a constant compression, and to peak in proportion to what a
        full cache would hold: exact for vanilla, close for methods that keep a share of what they see. A chain that was
        cut off before L is assumed to go on to L at the compression it had, the most it can cost by what is known of
        it; so is a forced answer.
        """
        own = self.lengths[-1]
        if own > L:
            return self._extend(self._interpolate(L), L, L + room)
        whole = ChainCosts(self.kv_reads[-1], self.peak_kv[-1], own, self.seconds)
        return self._extend(whole, own, L + room) if self.cut_off else whole

    def _extend(self, costs: ChainCosts, tokens: int, L: int) -> ChainCosts:
        """Costs of a chain of so many tokens, if it goes on to L at the compression it had."""
        if tokens == L:
            return costs
        # Reads grow by a share of a full cache's, the share that the chain had so far; the peak likewise.
        dense = dense_reads(self.prompt_tokens, tokens)
        share = costs.kv_reads / dense if dense else 1.0
        reads = costs.kv_reads + share * (dense_reads(self.prompt_tokens, L) - dense)
        peak = costs.peak_kv * dense_peak(self.prompt_tokens, L) / max(dense_peak(self.prompt_tokens, tokens), 1)
        return ChainCosts(reads, peak, L, costs.seconds * L / tokens)

    def _interpolate(self, L: int) -> ChainCosts:
        """Costs of the first L tokens, fewer than the chain has; exact at a cut."""
        # L lies in (start, end], where the chain has the reads and the peak of the cut before, or none yet.
        after = next(i for i, n in enumerate(self.lengths) if n >= L)
        start, reads, peak = 0, 0.0, 0.0
        if after:
            start, reads, peak = self.lengths[after - 1], self.kv_reads[after - 1], self.peak_kv[after - 1]
        end = self.lengths[after]
        # A full cache's reads from start to L, as a share of those from start to end.
        before = dense_reads(self.prompt_tokens, start) if start else 0
        whole = dense_reads(self.prompt_tokens, end) - before
        share = (dense_reads(self.prompt_tokens, L) - before) / whole if whole else 1.0
        growth = dense_peak(self.prompt_tokens, L) / max(dense_peak(self.prompt_tokens, end), 1)
        return ChainCosts(
            kv_reads=reads + share * (self.kv_reads[after] - reads),
            peak_kv=max(peak, self.peak_kv[after] * growth),
            tokens=L,
            seconds=self.seconds * L / self.lengths[-1],
        )


class EarlierRun(NamedTuple):
    """An earlier run that costs were predicted from, as ``plan.json`` names it.

    Attributes:
        folder: Name of its folder, beside the planned run's.
        run: Sixteen hexadecimal digits of the SHA-256 of its ``run.json``.
        samples: The same of its ``samples.jsonl``.
        chains: How many of its chains count.
    """

    folder: str
    run: str
    samples: str
    chains: int


@dataclass(frozen=True)
class MeasuredCosts:
    """Costs of finished chains of one arm on one task.

    Attributes:
        source: `PILOT` or `EARLIER`.
        chains: The chains.
        runs: The earlier runs that the chains are of.
    """

    source: str
    chains: tuple[MeasuredChain, ...]
    runs: tuple[EarlierRun, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether the seconds of all chains are those of this machine."""
        return all(chain.timed for chain in self.chains)

    def mean(self, L: int, *, invariant: bool, room: int = 0) -> ChainCosts | None:
        """Costs of the mean chain with at most L tokens, every problem counting the same; None if none is known.

        Args:
            L: The most new tokens.
            invariant: Whether the method's rule is the same for every L; else only chains that ran with this L count.
            room: Tokens of the answer that is forced upon a chain that L cuts off.
        """
        by_problem: dict[str, list[ChainCosts]] = {}
        for chain in self.chains:
            if invariant or chain.L == L:
                by_problem.setdefault(chain.problem, []).append(chain.costs_at(L, room))
        if not by_problem:
            return None
        # First the mean of each problem's chains, then of the problems: some have more chains than others.
        means = [[sum(column) / len(chains) for column in zip(*chains, strict=True)] for chains in by_problem.values()]
        return ChainCosts(*(sum(column) / len(means) for column in zip(*means, strict=True)))

    @property
    def pace(self) -> float | None:
        """Seconds that a chain takes per token on this machine; None if none ran on it."""
        timed = [chain for chain in self.chains if chain.timed]
        tokens = sum(chain.lengths[-1] for chain in timed)
        return sum(chain.seconds for chain in timed) / tokens if tokens else None


def of_samples(samples: Iterable[Sample], source: str, *, timed: bool = True) -> dict[Key, MeasuredCosts]:
    """The costs of stored chains, by arm and task."""
    chains: dict[Key, list[MeasuredChain]] = {}
    for sample in samples:
        chains.setdefault((sample.arm, sample.task), []).append(MeasuredChain.of(sample, timed=timed))
    return {key: MeasuredCosts(source, tuple(group)) for key, group in chains.items()}


def of_earlier_runs(root: Path, own: Path | None, info: Mapping[str, Any]) -> dict[Key, MeasuredCosts]:
    """The costs of those chains of finished runs that a planned run's chains will resemble.

    A run counts if its model and sampling are the same, and of it the chains whose method (with parameters and
    checkpoint), CR and task (with version) are. Runs that were not finished are left out: quick chains finish first, so
    theirs are too short. Broken folders are left out too.

    Args:
        root: Folder of run folders.
        own: The planned run's folder, left out.
        info: ``run.json`` of the planned run: config, tasks, checkpoints, params, hardware.
    """
    measured: dict[Key, MeasuredCosts] = {}
    for path in sorted(root.glob(f"*/{RUN_FILE}")) if root.is_dir() else []:
        folder = path.parent
        if (own and folder.resolve() == own.resolve()) or not (folder / POINTS).is_file():
            continue
        try:
            # Whatever is wrong with a folder, it is not this run's concern.
            earlier = read_info(folder)
            samples = _similar_samples(folder, earlier, info)
            if not samples:
                continue
            timed = earlier.get("hardware") == info.get("hardware")
            run, lines = (hash_file(folder / name) for name in (RUN_FILE, SAMPLES))
            for key, costs in of_samples(samples, EARLIER, timed=timed).items():
                known = measured.get(key)
                chains = (known.chains if known else ()) + costs.chains
                runs = (*(known.runs if known else ()), EarlierRun(folder.name, run, lines, len(costs.chains)))
                measured[key] = MeasuredCosts(EARLIER, chains, runs)
        except (ResultsError, OSError, KeyError, TypeError, AttributeError):
            continue
    return measured


def _similar_samples(folder: Path, earlier: Mapping[str, Any], info: Mapping[str, Any]) -> list[Sample]:
    """The chains of an earlier run whose model, sampling, method, CR and task are those of a planned one."""
    old, new = complete_config(earlier["config"]), complete_config(info["config"])
    if any(old.get(name) != new.get(name) for name in (old.keys() | new.keys()) - _FREE):
        return []
    arms = {
        arm
        for arm in info["params"]
        if all(arm in earlier[part] and earlier[part][arm] == info[part].get(arm) for part in ("params", "checkpoints"))
    }
    tasks = {name for name, version in info["tasks"].items() if earlier["tasks"].get(name) == version}
    # All of them before any counts: a broken line leaves the whole folder out.
    return [sample for sample in read_samples(folder / SAMPLES) if sample.task in tasks and str(sample.arm) in arms]


def earlier_runs(measured: Mapping[Key, MeasuredCosts], keys: Iterable[Key]) -> list[EarlierRun]:
    """The earlier runs whose chains the costs of these arms and tasks rest on, by folder; chains are added up."""
    runs: dict[tuple[str, str, str], int] = {}
    for key in dict.fromkeys(keys):
        for run in measured[key].runs if key in measured else ():
            runs[run[:3]] = runs.get(run[:3], 0) + run.chains
    return [EarlierRun(*run, chains) for run, chains in sorted(runs.items())]
