"""What a point will cost: from finished chains of the same kind where there are any, else in closed form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyperscale.planning.budget import Costs, TaskShape
from hyperscale.planning.measured_costs import Evidence, Key

if TYPE_CHECKING:
    from hyperscale.planning.arms import Arm

CLOSED = "closed form"


@dataclass(frozen=True)
class Predictor:
    """Predicts costs of chains.

    Attributes:
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads.
        evidence: Finished chains by method, CR and task.
        speed: Seconds that a chain of known other costs spends in the batch, if a GPU is planned for.
    """

    entry_bytes: int
    evidence: Mapping[Key, Evidence] = field(default_factory=dict)
    speed: Callable[[Costs], float] | None = None

    def chain(self, task: TaskShape, arm: "Arm", length: int) -> tuple[Costs, str]:
        """Costs of the mean chain with maximum ``length``, and where they are known from."""
        evidence = self.evidence.get((arm.method, arm.CR, task.name))
        cut = evidence.mean(length, invariant=arm.length_invariant, room=task.answer) if evidence else None
        if evidence is None or cut is None:
            costs, source = Costs.predict(task, 1, length + task.answer, arm.CR, self.entry_bytes), CLOSED
        else:
            costs = Costs(cut.kv_reads, cut.peak_kv, cut.peak_kv * self.entry_bytes, cut.tokens)
            source = evidence.source
        return self._timed(costs, evidence, cut.seconds if cut and evidence and evidence.timed else None), source

    def base_seconds(self, task: TaskShape) -> float | None:
        """Seconds of the base point, a vanilla chain of exactly the base length; None if no speed is known."""
        closed = Costs.predict(task, 1, task.base_length, 1.0, self.entry_bytes)
        return self._timed(closed, self.evidence.get(("vanilla", 1.0, task.name)), None).seconds

    def _timed(self, costs: Costs, evidence: Evidence | None, measured: float | None) -> Costs:
        """The costs with their seconds: measured, else by the GPU planned for, else by the pace of other chains."""
        seconds = measured
        if self.speed is not None:  # a plan for another GPU than the one that measured
            seconds = self.speed(costs)
        elif seconds is None and evidence is not None and evidence.pace is not None:
            seconds = costs.tokens * evidence.pace
        return Costs(costs.kv_reads, costs.peak_kv, costs.peak_bytes, costs.tokens, seconds)
