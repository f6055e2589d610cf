"""Plans a run: from a budget to the W-L-CR points that fit it, and from those to the chains to generate."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hyperscale.errors import BudgetError
from hyperscale.methods.arm import Arm, point_label
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import CLOSED_FORM_AXES, Costs, TaskShape
from hyperscale.planning.grid import Grid
from hyperscale.planning.prediction import CLOSED, Predictor

_ROUNDING = 1 + 1e-9  # a cost within this factor of the ceiling fits it


@dataclass(frozen=True)
class PlannedPoint:
    """A configuration W-L-CR of a method on a task, with its predicted costs per problem and where these come from."""

    task: str
    arm: Arm
    W: int
    L: int
    costs: Costs
    source: str = CLOSED

    @property
    def chain_costs(self) -> Costs:
        """Predicted costs of one of its chains."""
        return self.costs.times(1 / self.W)

    def __str__(self) -> str:
        return point_label(self.W, self.L, self.arm.CR, self.arm.kv_budget)


@dataclass(frozen=True)
class Plan:
    """The points that fit.

    Attributes:
        budget: The budget they fit.
        ceilings: Task name to the budget's value for it, in the unit of the budget's axis.
        points: The points, tasks within arms.
        n_dominated: How many more points fit, but are dominated by others (`is_dominated`).
    """

    budget: Budget
    ceilings: dict[str, float]
    points: tuple[PlannedPoint, ...]
    n_dominated: int = 0

    def points_of(self, arm: Arm, task: str) -> list[PlannedPoint]:
        """Points of one arm on one task."""
        return [point for point in self.points if point.arm == arm and point.task == task]

    def widest_points(self, arm: Arm, task: str) -> dict[int, PlannedPoint]:
        """The widest point of one arm on one task at each L, ascending."""
        points = sorted(self.points_of(arm, task), key=lambda point: (point.L, point.W))
        return {point.L: point for point in points}

    def chains(self, arm: Arm, task: str) -> list[tuple[int, int]]:
        """(chain index, L) of the chains to generate for each problem, the longest first.

        For a length-invariant method chain c is generated once, up to the largest L whose widest point has more than c
        chains; the shorter L come by cutting. Other methods run once per L.
        """
        widths = {L: point.W for L, point in self.widest_points(arm, task).items()}
        longest_first = sorted(widths, reverse=True)
        # A rule that depends on L makes another chain for each L: nothing can be cut.
        if not arm.length_invariant:
            return [(chain, L) for L in longest_first for chain in range(widths[L])]
        # Chain c has to reach the largest L at which more than c chains are needed.
        count = max(widths.values(), default=0)
        return [(chain, next(L for L in longest_first if widths[L] > chain)) for chain in range(count)]

    def chains_at_lengths(self, arm: Arm, task: str) -> dict[int, int]:
        """How many chains of a problem tell of each L of one arm's points, ascending: those of that L, or cut to it."""
        lengths = [L for _, L in self.chains(arm, task)]
        return {
            L: sum(length == L or (length > L and arm.length_invariant) for length in lengths)
            for L in self.widest_points(arm, task)
        }

    def max_tokens(self, arm: Arm, problems: dict[str, int]) -> int:
        """Most tokens that an arm can generate, given the number of problems of each task."""
        return sum(count * sum(L for _, L in self.chains(arm, task)) for task, count in problems.items())

    def expected_tokens(self, arm: Arm, problems: dict[str, int]) -> float:
        """Tokens that an arm is predicted to generate."""
        total = 0.0
        for task, count in problems.items():
            mean = {L: point.chain_costs.tokens for L, point in self.widest_points(arm, task).items()}
            total += count * sum(mean[L] for _, L in self.chains(arm, task))
        return total

    def saving(self, problems: dict[str, int]) -> tuple[float, float]:
        """How many times as many tokens a grid generates that runs every point by itself, W chains up to its L.

        Returns:
            The factor if every chain runs to its L, and if every chain ends before the shortest L: then what counts is
            the number of chains. What a run saves lies between.
        """
        arms = list(dict.fromkeys(point.arm for point in self.points))
        tokens = sum(self.max_tokens(arm, problems) for arm in arms)
        chains = sum(count * len(self.chains(arm, task)) for arm in arms for task, count in problems.items())
        grid_tokens = sum(problems[point.task] * point.W * point.L for point in self.points)
        grid_chains = sum(problems[point.task] * point.W for point in self.points)
        return (grid_tokens / tokens, grid_chains / chains) if chains else (1.0, 1.0)

    def exceeds(self, point: PlannedPoint, cost: float) -> bool:
        """Whether a cost on the budget's axis is more than a point's task may cost."""
        return cost > self.ceilings[point.task] * _ROUNDING


def is_dominated(point: PlannedPoint, others: Sequence[PlannedPoint], axis: str) -> bool:
    """Whether another point of the same arm and task is at least as wide and as long and costs no more on an axis.

    That is the case where chains end before the shorter L, or where a cost does not grow with L. Nothing else is taken
    to be worse before it has run: another CR is another checkpoint or rule, another method is what is compared, and a
    wider vote at the same L always costs more. Where the rule depends on L, another L is another rule: no chain of the
    longer one can be cut to the shorter.
    """
    return any(
        other.W >= point.W
        and (other.L == point.L or (other.L > point.L and point.arm.length_invariant))
        and (other.W, other.L) != (point.W, point.L)
        and other.costs.on(axis) <= point.costs.on(axis)
        for other in others
    )


def make_plan(
    budget: Budget,
    grid: Grid,
    tasks: Sequence[TaskShape],
    arms: Sequence[Arm],
    entry_bytes: int,
    predictor: Predictor | None = None,
    *,
    alike: Collection[str] = (),
) -> Plan:
    """Choose the candidates of a grid whose predicted cost is within the budget and that no other one dominates.

    Without a ceiling (``all``) every candidate stays: that run is about the grid.

    Args:
        budget: The ceiling, per problem.
        grid: Widths, and lengths if it narrows the tasks' own.
        tasks: The tasks, with the prompt lengths of the problems that run.
        arms: The methods with their CRs.
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads.
        predictor: Predicts the costs; by the closed form if None.
        alike: Methods whose chains of a problem are all the same, so that one says what more would.

    Raises:
        BudgetError: Nothing fits (the cheapest point is named), the grid has no length of a task, or the costs on the
            budget's axis are not known.
    """
    predictor = predictor or Predictor(entry_bytes)
    ceilings = {task.name: budget.ceiling(task, entry_bytes, predictor.base_seconds(task)) for task in tasks}
    # Every W at an L costs W times the mean chain, so one prediction serves all widths.
    candidates = []
    for arm in arms:
        for task in tasks:
            for L in grid.lengths_of(task.name, task.lengths):
                chain, source = predictor.predict_chain(task, arm, L)
                widths = (1,) if task.options or arm.method in alike else grid.widths  # nothing votes
                candidates += [PlannedPoint(task.name, arm, W, L, chain.times(W), source) for W in widths]
    axis = budget.axis
    if axis not in CLOSED_FORM_AXES and any(
        point.costs.seconds is None for point in candidates if math.isfinite(ceilings[point.task])
    ):
        raise BudgetError(
            f"a budget in {axis} cannot be planned, as the speed is not known before the run: let a pilot measure it "
            f"(leave --predict out), plan for a GPU with --dry-run --gpu, or use one of {', '.join(CLOSED_FORM_AXES)}"
        )
    tasks_without_ceiling = {task for task, ceiling in ceilings.items() if math.isinf(ceiling)}
    fitting = [
        point
        for point in candidates
        if point.task in tasks_without_ceiling or point.costs.on(axis) <= ceilings[point.task] * _ROUNDING
    ]
    if not fitting:
        raise _nothing_fits(budget, candidates, ceilings)
    # Points compete with those of the same arm and task alone.
    groups: dict[tuple[Arm, str], list[PlannedPoint]] = {}
    for point in fitting:
        groups.setdefault((point.arm, point.task), []).append(point)
    points = [
        point
        for point in fitting
        if point.task in tasks_without_ceiling or not is_dominated(point, groups[point.arm, point.task], axis)
    ]
    return Plan(budget, ceilings, tuple(points), len(fitting) - len(points))


def _nothing_fits(budget: Budget, candidates: Sequence[PlannedPoint], ceilings: dict[str, float]) -> BudgetError:
    axis = budget.axis
    # The one that exceeds its own task's ceiling by the smallest factor.
    cheapest = min(candidates, key=lambda point: point.costs.on(axis) / ceilings[point.task])
    cost, ceiling = cheapest.costs.on(axis), ceilings[cheapest.task]
    if math.isinf(cost):
        return BudgetError("nothing fits: the memory of the GPU holds no chain of any point; plan for a larger one")
    multiple = f", {cost / ceiling * budget.amount:.3g}x" if budget.relative else ""
    remedy = "raise the budget"
    if cheapest.arm.kv_budget:
        remedy += f", or choose fewer tokens for {cheapest.arm.method}.budget"
    elif cheapest.arm.method != "vanilla":
        remedy += ", or raise --cr"
    if cheapest.source == CLOSED:  # which takes every chain to run to L
        remedy += ", or see with --predict pilot whether chains end early enough to cost less"
    return BudgetError(
        f"nothing fits in {axis} {ceiling:,.0f}: the cheapest point is {cheapest} of {cheapest.arm.method} "
        f"on {cheapest.task} with {cost:,.0f}{multiple}; {remedy}"
    )
