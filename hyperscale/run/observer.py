"""Callbacks for a run's progress; subclasses show it on a terminal or write it as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperscale.engines.base import ChainProgress
    from hyperscale.methods.arm import Arm
    from hyperscale.results.points import MeasuredPoint
    from hyperscale.results.samples import Sample
    from hyperscale.run.planned_run import PlannedRun
    from hyperscale.run.prepare import Problem
    from hyperscale.run.verification import Compression


@dataclass(frozen=True)
class ArmSize:
    """What an arm has to generate in all.

    Attributes:
        chains: Number of chains.
        max_tokens: The most tokens that they can have together.
        batch_size: How many of them decode together.
        chains_at: How many chains of a problem tell of an L, by task and L of the plan's points.
    """

    chains: int
    max_tokens: int
    batch_size: int
    chains_at: Mapping[tuple[str, int], int] = field(default_factory=dict)


class RunObserver:
    """Called at each step of a run; the base class does nothing.

    Attributes:
        watches_chains: Whether `on_chain_progress` is to be called, at every token of the chains that are generated
            before the run: the pilot's, and those that are shown.
    """

    watches_chains = False

    def on_stage(self, text: str) -> None:
        """A step that takes a moment has begun."""

    def on_pilot(self, arm: "Arm", done: int, total: int) -> None:
        """The pilot of an arm has ``done`` of its ``total`` chains on the disk."""

    def on_chain_progress(self, arm: "Arm", problem: "Problem", progress: "ChainProgress") -> None:
        """A chain that is generated before the run has one more token."""

    def on_demonstration(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """A chain was generated to be shown before the run."""

    def on_plan(self, run: "PlannedRun", folder: Path) -> None:
        """The plan is made, and in the folder."""

    def on_open(self, folder: Path, n_chains: int) -> None:
        """The folder is open for writing and holds this many finished chains."""

    def on_note(self, text: str) -> None:
        """A remark about the costs of a method."""

    def on_arm_start(self, arm: "Arm", samples: "Sequence[Sample]", size: ArmSize) -> None:
        """An arm starts, with the chains it already has."""

    def on_chain(self, arm: "Arm", problem: "Problem", sample: "Sample") -> None:
        """A chain is on the disk."""

    def on_arm_end(self, arm: "Arm") -> None:
        """Every chain of an arm is on the disk."""

    def on_finish(
        self,
        run: "PlannedRun",
        folder: Path,
        points: "Sequence[MeasuredPoint]",
        compression: "Sequence[Compression]",
    ) -> None:
        """The points are written; ``compression`` compares each arm's realised CR with the nominal one."""

    def close(self) -> None:
        """Nothing more will come, because the run has finished or failed."""
