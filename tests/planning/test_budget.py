import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperscale.errors import BudgetError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.planning import grid
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import CLOSED_FORM_AXES, Costs, TaskShape
from hyperscale.planning.grid import Grid, available
from hyperscale.planning.planner import make_plan

TASK = TaskShape("t", 60, 1024, (256, 512, 1024, 2048))
GRID = Grid(name="g", description="", budget="8x", widths=(1, 2, 4, 8), crs=(2.0, 4.0, 8.0))
VANILLA, DMS = Arm("vanilla", 1.0), Arm("dms", 8.0)
BYTES = 6144


@pytest.mark.parametrize(
    ("text", "axis", "amount", "relative"),
    [
        ("8x", "kv_reads", 8, True),
        ("0.5x", "kv_reads", 0.5, True),
        (" 8x ", "kv_reads", 8, True),
        ("kv_reads=2^28", "kv_reads", 2**28, False),
        ("kv_reads = 3e5", "kv_reads", 3e5, False),
        ("peak_kv=32Ki", "peak_kv", 32 * 1024, False),
        ("peak_bytes=8GiB", "peak_bytes", 8 * 2**30, False),
        ("peak_bytes=8GB", "peak_bytes", 8e9, False),
        ("tokens=1M", "tokens", 1e6, False),
        ("tokens=1_000", "tokens", 1000, False),
        ("seconds=600", "seconds", 600, False),
        ("all", "kv_reads", math.inf, True),
    ],
)
def test_parse(text, axis, amount, relative):
    assert Budget.parse(text) == Budget(axis, amount, relative)


def test_axis_of_relative_budgets():
    assert Budget.parse("8x", "peak_kv").axis == "peak_kv"
    assert Budget.parse("tokens=5", "tokens").axis == "tokens"


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "8", "8y", "-8x", "0x", "nanx", "1e400x", "kv_reads=", "kv_reads=0", "kv_reads=-1", "kv_reads=nan"),
        *(
            "kv_reads=2^^8",
            "kv_reads=10^999",
            "kv_reads=8GiB",
            "tokens=1B",
            "joules=3",
            "=3",
            "kv_reads=1=2",
            "unknown",
        ),
    ],
)
def test_parse_refuses(text):
    with pytest.raises(BudgetError):
        Budget.parse(text)


def test_parse_refuses_a_contradiction_and_an_unknown_axis():
    with pytest.raises(BudgetError, match="--axis says peak_kv"):
        Budget.parse("kv_reads=5", "peak_kv")
    with pytest.raises(BudgetError, match="unknown axis 'joules'"):
        Budget.parse("8x", "joules")


def test_seconds_are_refused_when_planning():
    with pytest.raises(BudgetError, match="cannot be planned"):
        make_plan(Budget.parse("seconds=600"), GRID, [TASK], [VANILLA], BYTES)


def test_base_point_costs_1x():
    costs = Costs.predict(TASK, 1, 1024, 1.0, BYTES)
    for axis in CLOSED_FORM_AXES:
        assert Budget.parse("1x", axis).ceiling(TASK, BYTES) == costs.on(axis)
    assert costs == Costs(dense_reads(60, 1024), dense_peak(60, 1024), dense_peak(60, 1024) * BYTES, 1024)


def test_plan_of_8x_by_hand():
    # Reads of one vanilla chain at L are (L-1)·60 + (L-1)·L/2: 2048 costs 3.79 base points, 1024 one, 512 0.28.
    plan = make_plan(Budget.parse("8x"), GRID, [TASK], [VANILLA, DMS], BYTES)
    widths = {n: [p.W for p in plan.points_of(VANILLA, "t") if n == p.L] for n in TASK.lengths}
    assert widths == {256: [1, 2, 4, 8], 512: [1, 2, 4, 8], 1024: [1, 2, 4, 8], 2048: [1, 2]}
    assert plan.chains(VANILLA, "t") == [(0, 2048), (1, 2048), *((c, 1024) for c in range(2, 8))]
    assert plan.chains(DMS, "t") == [(c, 2048) for c in range(8)]
    assert plan.max_tokens(VANILLA, {"t": 3}) == 3 * (2 * 2048 + 6 * 1024)


def test_methods_that_depend_on_the_length_run_once_per_length():
    arm = Arm("tova", 8.0, length_invariant=False)
    plan = make_plan(Budget.parse("0.5x"), GRID, [TASK], [arm], BYTES)
    widest = {n: max((p.W for p in plan.points_of(arm, "t") if n == p.L), default=0) for n in TASK.lengths}
    assert sorted(plan.chains(arm, "t")) == sorted((c, n) for n, w in widest.items() for c in range(w))


def test_nothing_fits_names_the_cheapest_point():
    with pytest.raises(BudgetError, match=r"the cheapest point is 1-256-8 of dms on t with 5,992, 0\.0102x"):
        make_plan(Budget.parse("0.01x"), GRID, [TASK], [VANILLA, DMS], BYTES)
    with pytest.raises(BudgetError, match="kv_reads 5,000"):
        make_plan(Budget.parse("kv_reads=5000"), GRID, [TASK], [VANILLA, DMS], BYTES)


def test_a_grid_narrows_the_lengths():
    narrow = Grid(name="narrow", description="", budget="all", widths=(1, 2), crs=(4.0,), lengths=(1024, 8192))
    plan = make_plan(Budget.parse("all"), narrow, [TASK], [VANILLA], BYTES)
    assert [(p.W, p.L) for p in plan.points] == [(1, 1024), (2, 1024)]
    far = narrow.model_copy(update={"lengths": (8192,)})
    with pytest.raises(BudgetError, match="has none of the lengths of t"):
        make_plan(Budget.parse("all"), far, [TASK], [VANILLA], BYTES)


def test_shipped_grids():
    assert set(available()) >= {"ci", "mini", "one", "paper"}
    paper = Grid.load("paper")
    assert (paper.widths, paper.lengths, paper.crs) == ((1, 2, 4, 8), (8192, 16384, 32768), (4.0, 8.0))
    with pytest.raises(BudgetError, match="unknown grid 'nope': choose one of ci, mini, one, paper"):
        Grid.load("nope")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "description: a\nbudget: 8x\nwidths: [1, two]\ncrs: [8]\n",
            "own.yaml, line 3: widths.1 must be a whole number",
        ),
        ("description: a\nbudget: 8x\nwidths: [0]\ncrs: [8]\n", "own.yaml, line 3: widths.0 must be at least 1, got 0"),
        ("description: a\nbudget: 8x\nwidths: [1]\n", "own.yaml: crs is missing: a grid has description"),
        (
            "description: a\nbudget: 8x\nwidths: [1]\ncrs: [8]\nlength: 3\n",
            "line 5: length is unknown: did you mean 'lengths'?",
        ),
        ("- 1\n", "own.yaml is not a mapping"),
    ],
)
def test_a_malformed_grid(monkeypatch, tmp_path, text, message):
    monkeypatch.setattr(grid, "data_dir", lambda kind: tmp_path)
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BudgetError) as error:
        Grid.load("own")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


shapes = st.builds(
    lambda prompt, lengths: TaskShape("t", prompt, min(lengths), tuple(sorted(lengths))),
    st.integers(1, 5000),
    st.sets(st.integers(1, 40000), min_size=1, max_size=5),
)


@given(
    task=shapes,
    widths=st.sets(st.sampled_from([1, 2, 4, 8, 16]), min_size=1),
    cr=st.floats(1, 64),
    amount=st.floats(0.01, 100),
    axis=st.sampled_from(CLOSED_FORM_AXES),
)
def test_every_point_that_fits_is_planned_and_gets_its_chains(task, widths, cr, amount, axis):
    candidates = Grid(name="g", description="", budget="8x", widths=tuple(widths), crs=(cr,))
    arms = [Arm("vanilla", 1.0), Arm("dms", cr)]
    budget = Budget(axis, amount, relative=True)
    ceiling = amount * Costs.predict(task, 1, task.base_length, 1.0, BYTES).on(axis)
    fits = {
        (arm, W, L)
        for arm in arms
        for W in widths
        for L in task.lengths
        if Costs.predict(task, W, L, arm.CR, BYTES).on(axis) <= ceiling * (1 + 1e-9)
    }
    if not fits:
        with pytest.raises(BudgetError, match="cheapest point"):
            make_plan(budget, candidates, [task], arms, BYTES)
        return
    # In closed form costs grow with W and L, but for chains of one token, which read nothing whatever their number.
    nothing = axis == "kv_reads" and 1 in task.lengths
    fits -= {(arm, W, 1) for arm in arms for W in widths if nothing and max(widths) > W}
    plan = make_plan(budget, candidates, [task], arms, BYTES)
    assert {(p.arm, p.W, p.L) for p in plan.points} == fits
    for arm in arms:
        chains = plan.chains(arm, "t")
        assert [c for c, _ in chains] == list(range(len(chains)))
        assert [length for _, length in chains] == sorted((length for _, length in chains), reverse=True)
        for L in task.lengths:
            widest = max((W for a, W, n in fits if (a, n) == (arm, L)), default=0)
            # Enough chains reach L, and no chain runs further than a point of the plan needs.
            assert sum(length >= L for _, length in chains) >= widest
        longest = {length for _, length in chains}
        assert longest <= {n for a, _, n in fits if a == arm}
        for c, length in chains:
            assert max(W for a, W, n in fits if (a, n) == (arm, length)) > c
