"""The planner: from a budget to the W-L-CR points that fit it, and from those to the chains to generate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.errors import BudgetError
from hyperscale.planning.arms import Arm
from hyperscale.planning.budget import PREDICTED, Budget, Costs, Grid, TaskShape
from hyperscale.planning.prediction import CLOSED, Predictor

"""Where a run's folder keeps its plan."""


@dataclass(frozen=True)
class Point:
    """A configuration W-L-CR of a method on a task, with its predicted costs per problem and where these come from."""

    task: str
    arm: Arm
    W: int
    L: int
    costs: Costs
    source: str = CLOSED

    @property
    def chain(self) -> Costs:
        """Predicted costs of one of its chains."""
        return self.costs.times(1 / self.W)

    def __str__(self) -> str:
        return f"{self.W}-{self.L}-{self.arm.CR:g}"


@dataclass(frozen=True)
class Plan:
    """The points that fit.

    Attributes:
        budget: The budget they fit.
        ceilings: Task name to the budget's value for it, in the unit of the budget's axis.
        points: The points, tasks within arms.
        dominated: How many more points fit, but are `dominated`.
    """

    budget: Budget
    ceilings: dict[str, float]
    points: tuple[Point, ...]
    dominated: int = 0

    def of(self, arm: Arm, task: str) -> list[Point]:
        """Points of one arm on one task."""
        return [point for point in self.points if point.arm == arm and point.task == task]

    def chains(self, arm: Arm, task: str) -> list[tuple[int, int]]:
        """(chain index, L) of the chains to generate for each problem, the longest first.

        For a length-invariant method chain c is generated once, up to the largest L whose widest point has more than c
        chains; the shorter L come by cutting. Other methods run once per L.
        """
        widest: dict[int, int] = {}
        for point in self.of(arm, task):
            widest[point.L] = max(point.W, widest.get(point.L, 0))
        longest_first = sorted(widest, reverse=True)
        if not arm.length_invariant:
            return [(chain, length) for length in longest_first for chain in range(widest[length])]
        count = max(widest.values(), default=0)
        return [(chain, next(n for n in longest_first if widest[n] > chain)) for chain in range(count)]

    def tokens(self, arm: Arm, problems: dict[str, int]) -> int:
        """Most tokens that an arm can generate, given the number of problems of each task."""
        return sum(count * sum(length for _, length in self.chains(arm, task)) for task, count in problems.items())

    def expected_tokens(self, arm: Arm, problems: dict[str, int]) -> float:
        """Tokens that an arm is predicted to generate."""
        total = 0.0
        for task, count in problems.items():
            mean = {point.L: point.costs.tokens / point.W for point in self.of(arm, task)}
            total += count * sum(mean[length] for _, length in self.chains(arm, task))
        return total

    def saving(self, problems: dict[str, int]) -> tuple[float, float]:
        """How many times as many tokens a grid generates that runs every point by itself, W chains up to its L.

        Returns:
            The factor if every chain runs to its L, and if every chain ends before the shortest L: then what counts is
            the number of chains. What a run saves lies between.
        """
        arms = list(dict.fromkeys(point.arm for point in self.points))
        tokens = sum(self.tokens(arm, problems) for arm in arms)
        chains = sum(count * len(self.chains(arm, task)) for arm in arms for task, count in problems.items())
        grid_tokens = sum(problems[point.task] * point.W * point.L for point in self.points)
        grid_chains = sum(problems[point.task] * point.W for point in self.points)
        return (grid_tokens / tokens, grid_chains / chains) if chains else (1.0, 1.0)


def dominated(point: Point, others: Sequence[Point], axis: str) -> bool:
    """Whether another point of the same arm and task is at least as wide and as long and costs no more on an axis.

    That is the case where chains end before the shorter L, or where a cost does not grow with L. Nothing else is taken
    to be worse before it has run: another CR is another checkpoint or rule, another method is what is compared, and a
    wider vote at the same L always costs more.
    """
    return any(
        other.W >= point.W
        and other.L >= point.L
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
) -> Plan:
    """Keep the candidates of a grid whose predicted cost is within the budget and that no other one dominates.

    Without a ceiling (``all``) every candidate stays: that run is about the grid.

    Args:
        budget: The ceiling, per problem.
        grid: Widths, and lengths if it narrows the tasks' own.
        tasks: The tasks, with the prompt lengths of the problems that run.
        arms: The methods with their CRs.
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads.
        predictor: Knows costs; in closed form if None.

    Raises:
        BudgetError: Nothing fits (the cheapest point is named), the grid has no length of a task, or the costs on the
            budget's axis are not known.
    """
    predictor = predictor or Predictor(entry_bytes)
    ceilings = {task.name: budget.ceiling(task, entry_bytes, predictor.base_seconds(task)) for task in tasks}
    candidates = []
    for arm in arms:
        for task in tasks:
            for L in _lengths(grid, task):
                chain, source = predictor.chain(task, arm, L)
                candidates += [Point(task.name, arm, W, L, chain.times(W), source) for W in grid.widths]
    axis = budget.axis
    if axis not in PREDICTED and any(p.costs.seconds is None for p in candidates if math.isfinite(ceilings[p.task])):
        raise BudgetError(
            f"a budget in {axis} cannot be planned, as the speed is not known before the run: let a pilot measure it "
            f"(leave --predict out), plan for a GPU with --dry-run --gpu, or use one of {', '.join(PREDICTED)}"
        )
    fitting = [
        p for p in candidates if math.isinf(ceilings[p.task]) or p.costs.on(axis) <= ceilings[p.task] * (1 + 1e-9)
    ]
    if not fitting:
        raise _nothing_fits(budget, candidates, ceilings)
    groups: dict[tuple[Arm, str], list[Point]] = {}
    for point in fitting:
        groups.setdefault((point.arm, point.task), []).append(point)
    kept = [p for p in fitting if math.isinf(ceilings[p.task]) or not dominated(p, groups[p.arm, p.task], axis)]
    return Plan(budget, ceilings, tuple(kept), len(fitting) - len(kept))


def _nothing_fits(budget: Budget, candidates: Sequence[Point], ceilings: dict[str, float]) -> BudgetError:
    axis = budget.axis
    cheapest = min(candidates, key=lambda p: p.costs.on(axis) / ceilings[p.task])
    cost, ceiling = cheapest.costs.on(axis), ceilings[cheapest.task]
    if math.isinf(cost):
        return BudgetError("nothing fits: the memory of the GPU holds no chain of any point; plan for a larger one")
    hint = f", {cost / ceiling * budget.amount:.3g}x" if budget.relative else ""
    more = "" if cheapest.arm.method == "vanilla" else ", or raise --cr"
    if cheapest.source == CLOSED:  # which takes every chain to run to L
        more += ", or see with --predict pilot whether chains end early enough to cost less"
    return BudgetError(
        f"nothing fits in {axis} {ceiling:,.0f}: the cheapest point is {cheapest} of {cheapest.arm.method} "
        f"on {cheapest.task} with {cost:,.0f}{hint}; raise the budget{more}"
    )


def _lengths(grid: Grid, task: TaskShape) -> list[int]:
    lengths = [n for n in task.lengths if grid.lengths is None or n in grid.lengths]
    if not lengths:
        raise BudgetError(
            f"the grid {grid.name!r} has none of the lengths of {task.name} ({', '.join(map(str, task.lengths))}): "
            "choose another grid"
        )
    return lengths
