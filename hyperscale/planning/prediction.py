"""Predicts what a chain will cost: from finished chains of the same kind where there are any, else in closed form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hyperscale.methods.arm import Arm
from hyperscale.methods.names import SELECTORS, VANILLA
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.measured_costs import Key, MeasuredCosts

CLOSED = "closed form"


@dataclass(frozen=True)
class Predictor:
    """Predicts costs of chains.

    Attributes:
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads, the most of any method.
        measured: Finished chains by method, CR and task.
        speed: Seconds that a chain of known other costs spends in the batch, if a GPU is planned for.
        bytes_of_method: ``entry_bytes`` by method, where an engine does not keep the entries of all of them alike.
    """

    entry_bytes: int
    measured: Mapping[Key, MeasuredCosts] = field(default_factory=dict)
    speed: Callable[[Costs], float] | None = None
    bytes_of_method: Mapping[str, int] = field(default_factory=dict)

    def entry_bytes_of(self, arm: Arm) -> int:
        """Bytes of one (key, value) pair of an arm."""
        return self.bytes_of_method.get(arm.method, self.entry_bytes)

    def predict_chain(self, task: TaskShape, arm: Arm, L: int) -> tuple[Costs, str]:
        """Costs of the mean chain with at most L tokens, and the source they were predicted from."""
        known = self.measured.get((arm, task.name))
        mean = known.mean(L, invariant=arm.length_invariant, room=task.answer) if known else None
        # Chains of another L say nothing about a method whose rule depends on L: `mean` is None then.
        if known is None or mean is None:
            evicts, entry_bytes = arm.method not in SELECTORS, self.entry_bytes_of(arm)
            costs = Costs.predict(task, 1, L + task.answer, arm.CR, entry_bytes, arm.kv_budget, evicts=evicts)
            return self._with_seconds(costs, known, None), CLOSED
        reads, peak = mean.kv_reads, mean.peak_kv
        if not task.options:
            # They may be of other problems, with longer prompts; none of these can cost more than a full cache does.
            most = Costs.predict(task, 1, L + task.answer, 1.0, self.entry_bytes)
            reads, peak = min(reads, most.kv_reads), min(peak, most.peak_kv)
        costs = Costs(reads, peak, peak * self.entry_bytes_of(arm), mean.tokens)
        return self._with_seconds(costs, known, mean.seconds if known.timed else None), known.source

    def base_seconds(self, task: TaskShape) -> float | None:
        """Seconds of the base point, a vanilla chain of exactly the base length; None if no speed is known."""
        costs = Costs.predict(task, 1, task.base_length, 1.0, self.entry_bytes)
        return self._with_seconds(costs, self.measured.get((Arm(VANILLA, 1.0), task.name)), None).seconds

    def _with_seconds(self, costs: Costs, known: MeasuredCosts | None, mean_seconds: float | None) -> Costs:
        """The costs with their seconds: measured, else by the GPU planned for, else by the pace of other chains."""
        seconds = mean_seconds
        if self.speed is not None:  # a plan for another GPU than the one that measured
            seconds = self.speed(costs)
        elif seconds is None and known is not None and known.pace is not None:
            seconds = costs.tokens * known.pace
        return Costs(costs.kv_reads, costs.peak_kv, costs.peak_bytes, costs.tokens, seconds)
