"""What finished chains tell of chains to come: costs by length, from a pilot or from earlier runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from hyperscale.errors import ResultsError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.results.manifest import POINTS, RUN, SAMPLES, complete_config, read_info
from hyperscale.results.sample_file import read_samples
from hyperscale.results.samples import Sample

PILOT, EARLIER = "pilot", "earlier runs"
# Of a configuration: what may differ between a run and one that tells of it. Method, CR and task are compared by chain.
_FREE = {"methods", "budget", "axis", "tasks", "task_params", "lengths", "crs", "grid", "limit", "seeds", "params"}
_FREE |= {"device", "dtype", "predict"}

Key = tuple[Arm, str]
"""An arm, and the name of a task."""


class Cut(NamedTuple):
    """Costs of one chain with at most so many tokens; means over layers and KV heads."""

    kv_reads: float
    peak_kv: float
    tokens: float
    seconds: float


@dataclass(frozen=True)
class Trail:
    """The costs of one finished chain, by length.

    Attributes:
        problem: Its problem.
        limit: L it ran with.
        cut: Whether L cut it off.
        prompt: Prompt tokens.
        lengths: Numbers of generated tokens, ascending; the last is its own length.
        kv_reads: Reads at each.
        peak_kv: Peak at each.
        seconds: Time in the batch.
    """

    problem: str
    limit: int
    cut: bool
    prompt: int
    lengths: tuple[int, ...]
    kv_reads: tuple[float, ...]
    peak_kv: tuple[float, ...]
    seconds: float

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """The costs of a stored chain."""
        return cls(
            problem=sample.problem,
            limit=sample.L,
            cut=sample.finish == "length",
            prompt=sample.prompt_tokens,
            lengths=tuple(cut.tokens for cut in sample.cuts),
            kv_reads=tuple(cut.kv_reads for cut in sample.cuts),
            peak_kv=tuple(cut.peak_kv for cut in sample.cuts),
            seconds=sample.seconds,
        )

    def at(self, length: int, room: int = 0) -> Cut:
        """The chain with at most ``length`` tokens, and ``room`` more if they cut it off: a forced answer's.

        Between checkpoints it is taken to have read at an even compression, and to have peaked in proportion to what a
        full cache would hold: exact for vanilla, near for methods that keep a share of what they see. A chain that was
        cut off earlier is taken to run on to ``length`` at the compression it had, the most it can cost by what is
        known of it; forced answers likewise.
        """
        own = self.lengths[-1]
        if length < own:
            return self._grown(self._between(length), length, length + room)
        whole = Cut(self.kv_reads[-1], self.peak_kv[-1], own, self.seconds)
        return self._grown(whole, own, length + room) if self.cut else whole

    def _grown(self, cut: Cut, own: int, length: int) -> Cut:
        """A chain of ``own`` tokens that goes on to ``length`` at the compression it had."""
        if length == own:
            return cut
        dense = dense_reads(self.prompt, own)
        kept = cut.kv_reads / dense if dense else 1.0
        reads = cut.kv_reads + kept * (dense_reads(self.prompt, length) - dense)
        peak = cut.peak_kv * dense_peak(self.prompt, length) / max(dense_peak(self.prompt, own), 1)
        return Cut(reads, peak, length, cut.seconds * length / own)

    def _between(self, length: int) -> Cut:
        after = next(i for i, n in enumerate(self.lengths) if n >= length)
        start, reads, peak = 0, 0.0, 0.0
        if after:
            start, reads, peak = self.lengths[after - 1], self.kv_reads[after - 1], self.peak_kv[after - 1]
        end = self.lengths[after]
        before = dense_reads(self.prompt, start) if start else 0
        whole = dense_reads(self.prompt, end) - before
        share = (dense_reads(self.prompt, length) - before) / whole if whole else 1.0
        peak = max(peak, self.peak_kv[after] * dense_peak(self.prompt, length) / max(dense_peak(self.prompt, end), 1))
        return Cut(
            reads + share * (self.kv_reads[after] - reads), peak, length, self.seconds * length / self.lengths[-1]
        )


@dataclass(frozen=True)
class Evidence:
    """Finished chains of one method, CR and task.

    Attributes:
        source: `PILOT` or `EARLIER`.
        trails: The chains.
        timed: Whether their seconds are those of this machine.
    """

    source: str
    trails: tuple[Trail, ...]
    timed: bool = True

    def mean(self, length: int, *, invariant: bool, room: int = 0) -> Cut | None:
        """The mean chain with at most ``length`` tokens, ``room`` more if cut off; every problem counts the same.

        Only chains that ran with this very L tell of a method whose rule depends on L; None if there are none.
        """
        by_problem: dict[str, list[Cut]] = {}
        for trail in self.trails:
            if invariant or trail.limit == length:
                by_problem.setdefault(trail.problem, []).append(trail.at(length, room))
        if not by_problem:
            return None
        means = [[sum(column) / len(cuts) for column in zip(*cuts, strict=True)] for cuts in by_problem.values()]
        return Cut(*(sum(column) / len(means) for column in zip(*means, strict=True)))

    @property
    def pace(self) -> float | None:
        """Seconds that a chain takes per token; None if they are another machine's."""
        tokens = sum(trail.lengths[-1] for trail in self.trails)
        return sum(trail.seconds for trail in self.trails) / tokens if self.timed and tokens else None


def of_samples(samples: Iterable[Sample], source: str, *, timed: bool = True) -> dict[Key, Evidence]:
    """Sort chains by arm and task."""
    found: dict[Key, list[Trail]] = {}
    for sample in samples:
        found.setdefault((sample.arm, sample.task), []).append(Trail.of(sample))
    return {key: Evidence(source, tuple(trails), timed) for key, trails in found.items()}


def earlier(root: Path, own: Path | None, info: Mapping[str, Any]) -> dict[Key, Evidence]:
    """What finished runs in a folder tell of a run that is planned.

    A run counts if its model and sampling are the same, and of it the chains whose method (with parameters and
    checkpoint), CR and task (with version) are. Runs that were not finished are left out: quick chains finish first, so
    theirs are too short. Broken folders are left out too.

    Args:
        root: Folder of run folders.
        own: The planned run's folder, left out.
        info: ``run.json`` of the planned run: config, tasks, checkpoints, params, hardware.
    """
    found: dict[Key, Evidence] = {}
    for path in sorted(root.glob(f"*/{RUN}")) if root.is_dir() else []:
        folder = path.parent
        if (own and folder.resolve() == own.resolve()) or not (folder / POINTS).is_file():
            continue
        try:
            old = read_info(folder)
            if _same(old["config"], info["config"]):
                arms = {arm for arm in info["params"] if _agree(old, info, arm)}
                tasks = {name for name, version in info["tasks"].items() if old["tasks"].get(name) == version}
                samples = [
                    sample
                    for sample in read_samples(folder / SAMPLES)
                    if sample.task in tasks and str(sample.arm) in arms
                ]
                timed = old.get("hardware") == info.get("hardware")
                for key, new in of_samples(samples, EARLIER, timed=timed).items():
                    before = found.get(key)
                    trails = (before.trails if before else ()) + new.trails
                    found[key] = Evidence(EARLIER, trails, timed and (before is None or before.timed))
        except (ResultsError, OSError, KeyError, TypeError, AttributeError):
            continue
    return found


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    old, new = complete_config(old), complete_config(new)
    return all(old.get(name) == new.get(name) for name in (old.keys() | new.keys()) - _FREE)


def _agree(old: Mapping[str, Any], new: Mapping[str, Any], arm: str) -> bool:
    return all(arm in old[part] and old[part][arm] == new[part].get(arm) for part in ("params", "checkpoints"))
