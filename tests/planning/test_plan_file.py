"""plan.json: what is written is read again, and what is not a plan is refused with the key that is wrong."""

import json
import math

import pytest

from hyperscale.errors import ResultsError
from hyperscale.methods.arm import Arm
from hyperscale.planning import plan_file
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import Costs
from hyperscale.planning.planner import Plan, PlannedPoint

ARMS = [Arm("vanilla", 1.0), Arm("dms", 8.0)]
BUDGET = Budget.parse("8x")
PLAN = Plan(
    BUDGET,
    {"t": 100.5, "u": math.inf},
    (
        PlannedPoint("t", ARMS[0], 1, 256, Costs(1.5, 2, 3, 4)),
        PlannedPoint("u", ARMS[1], 2, 512, Costs(1, 2, 3, 4, 5), "pilot"),
    ),
    n_dominated=3,
)


def test_what_is_written_is_read(tmp_path):
    assert plan_file.load(tmp_path, BUDGET, ARMS) is None
    plan_file.save(PLAN, tmp_path)
    assert plan_file.load(tmp_path, BUDGET, ARMS) == PLAN


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), 2, "schema_version must be 1, got 2"),
        (("points", 0, "W"), "many", "points.0.W must be a whole number, got 'many'"),
        (("points", 1, "kv_reads"), None, "points.1.kv_reads must be a number, got None"),
        (("ceilings",), [1], "ceilings must be a mapping"),
        (("points", 1, "CR"), 4.0, "it plans dms 4×, which this one lacks"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path, path, value, message):
    plan_file.save(PLAN, tmp_path)
    contents = place = json.loads((tmp_path / plan_file.PLAN_FILE).read_text())
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    (tmp_path / plan_file.PLAN_FILE).write_text(json.dumps(contents))
    with pytest.raises(ResultsError) as error:
        plan_file.load(tmp_path, BUDGET, ARMS)
    assert message in str(error.value)
    assert str(error.value).endswith("restore it, or choose another folder with --out")
    for text in ("{", "[]", "null"):
        (tmp_path / plan_file.PLAN_FILE).write_text(text)
        with pytest.raises(ResultsError, match="is unreadable"):
            plan_file.load(tmp_path, BUDGET, ARMS)


def test_chains_are_recorded_by_arm(tmp_path):
    assert plan_file.planned_chains(tmp_path) is None
    plan_file.save(PLAN, tmp_path)
    assert plan_file.planned_chains(tmp_path) is None  # as in folders of older versions
    plan_file.save(PLAN, tmp_path, chains={"vanilla": 3, "dms 8×": 4})
    assert plan_file.planned_chains(tmp_path) == {"vanilla": 3, "dms 8×": 4}
    assert plan_file.load(tmp_path, BUDGET, ARMS) == PLAN
