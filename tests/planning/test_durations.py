"""How long a plan takes, against what can be worked out by hand."""

import pytest

from hyperscale.methods.arm import Arm
from hyperscale.models.shape import Shape
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import Costs
from hyperscale.planning.durations import duration_of
from hyperscale.planning.planner import Plan, PlannedPoint
from hyperscale.planning.roofline import Roofline, find_gpu
from hyperscale.utils.quantities import format_duration

DMS = Arm("dms", 8.0)


def plan(*points):
    """Points (task, W, L, seconds of a chain)."""
    planned = tuple(
        PlannedPoint(task, DMS, W, L, Costs(1e3, 100, 1e5, L, seconds).times(W)) for task, W, L, seconds in points
    )
    return Plan(Budget.parse("all"), {}, planned)


def test_chains_that_decode_together_take_their_time_at_once():
    # Chains of a problem of t: two of 1,024 tokens and two more of 512; of u: one.
    made = plan(("t", 2, 1024, 30.0), ("t", 4, 512, 20.0), ("u", 1, 512, 6.0))
    problems = {"t": 10, "u": 5}
    # What was measured is an estimate, no bound.
    assert duration_of(made, DMS, problems, 5) == ((10 * (2 * 30 + 2 * 20) + 5 * 6) / 5, "measured pace", False)
    # No more chains decode together than there are.
    assert duration_of(made, DMS, {"t": 1, "u": 0}, 64).seconds == 100 / 4
    assert duration_of(made, Arm("vanilla", 1.0), problems, 5) is None
    # Where more chains together are not faster, those that were measured tell how many count.
    alone = duration_of(made, DMS, problems, 5, measured_together=1).seconds
    assert alone == pytest.approx(10 * (2 * 30 + 2 * 20) + 5 * 6)
    assert duration_of(made, DMS, problems, 5, measured_together=50) == duration_of(made, DMS, problems, 5)


def test_a_task_that_was_never_timed_runs_at_the_pace_of_the_others():
    made = plan(("t", 1, 1000, 30.0), ("u", 1, 500, None))
    assert duration_of(made, DMS, {"t": 4, "u": 8}, 4).seconds == pytest.approx(2 * 4 * 30 / 4)


def test_a_plan_that_was_made_before_anything_was_timed_takes_the_pace_of_what_was_timed_since():
    made, problems = plan(("t", 1, 1000, None), ("u", 1, 500, None)), {"t": 4, "u": 8}
    found = duration_of(made, DMS, problems, 4, paces={"t": 0.03, "u": 0.01})
    assert found == (pytest.approx((4 * 30 + 8 * 5) / 4), "measured pace", False)
    # Chains that are not faster together are told of as those whose seconds the plan has.
    assert duration_of(made, DMS, problems, 4, paces={"t": 0.03, "u": 0.01}, measured_together=1).seconds == (
        pytest.approx(4 * 30 + 8 * 5)
    )
    # Seconds that the plan has stay.
    assert duration_of(plan(("t", 1, 1000, 7.0)), DMS, {"t": 4}, 4, paces={"t": 0.03}).seconds == 7


def test_without_measured_seconds_the_roofline_tells_if_there_is_one():
    made, problems = plan(("t", 1, 1024, None)), {"t": 8}
    assert duration_of(made, DMS, problems, 4) is None
    shape = Shape(layers=28, kv_heads=8, head_dim=128, parameters=8 * 10**9)
    roofline = Roofline.of(find_gpu("h100"), shape, "bfloat16")
    found = duration_of(made, DMS, problems, 4, roofline)
    assert found.seconds == pytest.approx(8 * roofline.chain_seconds(made.points[0].chain_costs, 4) / 4)
    assert (found.source, found.is_bound) == (f"roofline of {roofline.gpu.name}", True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 seconds"), (119, "119 seconds"), (600, "10 minutes"), (9000, "2.5 hours"), (86_400 * 12.4, "12 days")],
)
def test_durations_in_words(seconds, text):
    assert format_duration(seconds) == text


def test_engines_share_the_chains():
    made = plan(("t", 1, 1024, 8.0))
    one, four = (duration_of(made, DMS, {"t": 64}, 4, engines=engines).seconds for engines in (1, 4))
    assert one == pytest.approx(64 * 8.0 / 4)
    assert four == pytest.approx(one / 4)
    # No more of them work than there are chains.
    assert duration_of(made, DMS, {"t": 2}, 4, engines=8).seconds == pytest.approx(8.0)
