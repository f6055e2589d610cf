"""Predicts what a chain will cost: from finished chains of the same kind where there are any, else in closed form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hyperscale.methods.arm import Arm
from hyperscale.methods.names import VANILLA
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.measured_costs import Evidence, Key

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

    def predict_chain(self, task: TaskShape, arm: "Arm", L: int) -> tuple[Costs, str]:
        """Costs of the mean chain with at most L tokens, and the source they were predicted from."""
        evidence = self.evidence.get((arm, task.name))
        mean = evidence.mean(L, invariant=arm.length_invariant, room=task.answer) if evidence else None
        # Chains of another L say nothing about a method whose rule depends on L: `mean` is None then.
        if evidence is None or mean is None:
            costs = Costs.predict(task, 1, L + task.answer, arm.CR, self.entry_bytes)
            return self._with_seconds(costs, evidence, None), CLOSED
        costs = Costs(mean.kv_reads, mean.peak_kv, mean.peak_kv * self.entry_bytes, mean.tokens)
        return self._with_seconds(costs, evidence, mean.seconds if evidence.timed else None), evidence.source

    def base_seconds(self, task: TaskShape) -> float | None:
        """Seconds of the base point, a vanilla chain of exactly the base length; None if no speed is known."""
        costs = Costs.predict(task, 1, task.base_length, 1.0, self.entry_bytes)
        return self._with_seconds(costs, self.evidence.get((Arm(VANILLA, 1.0), task.name)), None).seconds

    def _with_seconds(self, costs: Costs, evidence: Evidence | None, measured: float | None) -> Costs:
        """The costs with their seconds: measured, else by the GPU planned for, else by the pace of other chains."""
        seconds = measured
        if self.speed is not None:  # a plan for another GPU than the one that measured
            seconds = self.speed(costs)
        elif seconds is None and evidence is not None and evidence.pace is not None:
            seconds = costs.tokens * evidence.pace
        return Costs(costs.kv_reads, costs.peak_kv, costs.peak_bytes, costs.tokens, seconds)
