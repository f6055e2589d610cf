"""Estimates how long the chains of a plan take: at the pace of finished chains, else by the roofline of a GPU.

A chain's predicted seconds are its time in a batch; as many chains as decode together take that time at once. Chains
end at unlike lengths and the last ones leave the batch half empty, so it is an estimate, good to a factor of two.
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from hyperscale.methods.arm import Arm
from hyperscale.planning.planner import Plan
from hyperscale.planning.roofline import Roofline

HOUR, DAY = 3_600.0, 86_400.0  # seconds


class Duration(NamedTuple):
    """How long something takes.

    Attributes:
        seconds: Estimated.
        source: What by, for people.
        is_bound: Whether it takes that long at least: a part of it is a roofline's.
    """

    seconds: float
    source: str
    is_bound: bool = False


def duration_of(
    plan: Plan,
    arm: Arm,
    problems: Mapping[str, int],
    batch_size: int,
    roofline: Roofline | None = None,
    *,
    planned_by: str = "measured pace",
    paces: Mapping[str, float] | None = None,
    measured_together: int | None = None,
    engines: int = 1,
) -> Duration | None:
    """How long an arm takes; None where nothing is known of the speed.

    Args:
        plan: The plan.
        arm: A method at a CR.
        problems: Number of problems of each task, counted once a seed.
        batch_size: Most chains that decode together.
        roofline: Of the GPU that it runs on; taken where neither the plan's points nor a pace have the seconds.
        planned_by: What the seconds of the plan's points are predicted by.
        paces: Seconds per token of the arm's chains that were timed here, by task; taken where the plan's points have
            no seconds, as those of a plan that was made before anything was timed.
        measured_together: At most so many chains decoded together where their seconds were measured, and more would
            not be faster together: on a CPU, where a step takes as long as its chains take in all. None where a chain
            takes as long in any company, as on a GPU that waits for memory.
        engines: How many share the chains, each on hardware of its own.
    """
    chains = {task: plan.chains(arm, task) for task in problems}
    in_all = sum(problems[task] * len(of_task) for task, of_task in chains.items())
    together = min(batch_size, ceil(in_all / engines))
    company = together if measured_together is None else max(min(together, measured_together), 1)
    # Seconds, and tokens of chains whose seconds are known, and of those whose are not.
    total, timed, untimed, sources = 0.0, 0.0, 0.0, set()
    for task, of_task in chains.items():
        widest = plan.widest_points(arm, task)
        for _, L in of_task:
            costs, source = widest[L].chain_costs, planned_by
            seconds = costs.seconds
            if seconds is None and paces and task in paces:
                seconds = costs.tokens * paces[task]
            if seconds is not None:
                seconds *= together / company
            if seconds is None and roofline is not None:
                seconds, source = roofline.chain_seconds(costs, together), name_roofline(roofline)
            if seconds is None:
                untimed += problems[task] * costs.tokens
                continue
            sources.add(source)
            timed += problems[task] * costs.tokens
            total += problems[task] * seconds / (together * min(engines, in_all))
    # On a task where the arm was never timed it is taken to be as fast as on the others.
    is_bound = roofline is not None and name_roofline(roofline) in sources
    return Duration(total * (1 + untimed / timed), ", ".join(sorted(sources)), is_bound) if timed else None


def name_roofline(roofline: Roofline) -> str:
    """A roofline as the source of a time."""
    return f"roofline of {roofline.gpu.name}"
