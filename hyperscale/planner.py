"""The planner: from a budget to the W-L-CR points that fit it, and from those to the chains to generate."""

from collections.abc import Sequence
from dataclasses import dataclass

from hyperscale.budget import Budget, Costs, Grid, TaskShape
from hyperscale.errors import BudgetError


@dataclass(frozen=True)
class Arm:
    """A method at one nominal CR.

    Attributes:
        method: The method's name.
        CR: Nominal compression ratio.
        length_invariant: Whether a chain cut to L is the chain that a run with maximum L would give.
    """

    method: str
    CR: float
    length_invariant: bool = True

    def __str__(self) -> str:
        return self.method if self.CR == 1 else f"{self.method} {self.CR:g}×"


@dataclass(frozen=True)
class Point:
    """A configuration W-L-CR of a method on a task, with its predicted costs per problem."""

    task: str
    arm: Arm
    W: int
    L: int
    costs: Costs

    def __str__(self) -> str:
        return f"{self.W}-{self.L}-{self.arm.CR:g}"


@dataclass(frozen=True)
class Plan:
    """The points that fit.

    Attributes:
        budget: The budget they fit.
        ceilings: Task name to the budget's value for it, in the unit of the budget's axis.
        points: The points, tasks within arms.
    """

    budget: Budget
    ceilings: dict[str, float]
    points: tuple[Point, ...]

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


def make_plan(budget: Budget, grid: Grid, tasks: Sequence[TaskShape], arms: Sequence[Arm], entry_bytes: int) -> Plan:
    """Keep the candidates of a grid whose predicted cost is within the budget.

    Args:
        budget: The ceiling, per problem.
        grid: Widths, and lengths if it narrows the tasks' own.
        tasks: The tasks, with the prompt lengths of the problems that run.
        arms: The methods with their CRs.
        entry_bytes: Bytes of one (key, value) pair summed over layers and KV heads.

    Raises:
        BudgetError: Nothing fits (the cheapest point is named), or the grid has no length of a task.
    """
    ceilings = {task.name: budget.ceiling(task, entry_bytes) for task in tasks}
    candidates = [
        Point(task.name, arm, W, L, Costs.predict(task, W, L, arm.CR, entry_bytes))
        for arm in arms
        for task in tasks
        for L in _lengths(grid, task)
        for W in grid.widths
    ]
    points = tuple(p for p in candidates if p.costs.on(budget.axis) <= ceilings[p.task] * (1 + 1e-9))
    if not points:
        cheapest = min(candidates, key=lambda p: p.costs.on(budget.axis) / ceilings[p.task])
        cost, ceiling = cheapest.costs.on(budget.axis), ceilings[cheapest.task]
        hint = f", {cost / ceiling * budget.amount:.3g}x" if budget.relative else ""
        raise BudgetError(
            f"nothing fits in {budget.axis} {ceiling:,.0f}: the cheapest point is {cheapest} of {cheapest.arm.method} "
            f"on {cheapest.task} with {cost:,.0f}{hint}; raise the budget, or raise --cr"
        )
    return Plan(budget, ceilings, points)


def _lengths(grid: Grid, task: TaskShape) -> list[int]:
    lengths = [n for n in task.lengths if grid.lengths is None or n in grid.lengths]
    if not lengths:
        raise BudgetError(
            f"the grid {grid.name!r} has none of the lengths of {task.name} ({', '.join(map(str, task.lengths))}): "
            "choose another grid"
        )
    return lengths
