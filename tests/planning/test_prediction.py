import json
import math
from dataclasses import replace

import architectures
import pandas as pd
import pytest
from rich.console import Console
from synthetic_samples import sample, write_samples

from hyperscale.cli.display import plan_tables
from hyperscale.errors import BudgetError
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods import registry
from hyperscale.methods.arm import Arm
from hyperscale.methods.names import SELECTORS
from hyperscale.planning import measured_costs
from hyperscale.planning.budget import Budget
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.grid import Grid
from hyperscale.planning.measured_costs import MeasuredChain, MeasuredCosts
from hyperscale.planning.planner import Plan, PlannedPoint, is_dominated, make_plan
from hyperscale.planning.prediction import CLOSED, Predictor
from hyperscale.run import dry_run
from hyperscale.run.config import load

TASK = TaskShape("mini_aime", 50, 1024, (256, 512, 1024, 2048))
GRID = Grid(name="g", description="", budget="8x", widths=(1, 2, 4, 8), crs=(8.0,))
VANILLA, DMS = Arm("vanilla", 1.0), Arm("dms", 8.0)


def of(*lines, **more):
    return measured_costs.of_samples(lines, measured_costs.PILOT, **more)


def test_a_finished_chain_costs_the_same_at_every_length_it_fits_in():
    chain = MeasuredChain.of(sample(tokens=600))
    for length in (600, 1024, 2048, 9999):
        assert chain.costs_at(length) == (dense_reads(50, 600), dense_peak(50, 600), 600, 1.0)
    assert chain.costs_at(512) == (dense_reads(50, 512), dense_peak(50, 512), 512, 512 / 600)


def test_between_checkpoints_it_reads_at_an_even_compression():
    for length in (2, 100, 400):
        cut = MeasuredChain.of(sample(tokens=600)).costs_at(length)
        assert cut[:3] == pytest.approx((dense_reads(50, length), dense_peak(50, length), length))
    # A chain that was looked at only at its end, as in a run of one L: its cheap beginning is not taken to be dear.
    line = sample(method="dms", CR=4.0, tokens=2000)
    blind = MeasuredChain.of(replace(line, cuts=(line.whole,)))
    assert blind.costs_at(256)[:2] == pytest.approx((dense_reads(50, 256) / 4, dense_peak(50, 256) / 4))


def test_a_chain_cut_off_early_is_taken_to_run_on_at_its_own_compression():
    chain = MeasuredChain.of(sample(method="dms", CR=4.0, tokens=4096, L=1024))
    assert chain.costs_at(2048) == pytest.approx((dense_reads(50, 2048) / 4, dense_peak(50, 2048) / 4, 2048, 2.0))


def test_every_problem_counts_the_same():
    lines = [sample("a", c, tokens=100) for c in range(3)] + [sample("b", tokens=200)]
    (known,) = of(*lines).values()
    assert known.mean(256, invariant=True).tokens == 150


def test_where_the_rule_depends_on_the_length_only_that_length_tells():
    lines = [sample(method="h2o", CR=4.0, tokens=100, L=512, length_invariant=False)]
    arm = Arm("h2o", 4.0, length_invariant=False)
    predictor = Predictor(100, of(*lines))
    assert predictor.predict_chain(TASK, arm, 512)[1] == measured_costs.PILOT
    costs, source = predictor.predict_chain(TASK, arm, 1024)
    assert source == CLOSED
    assert costs.kv_reads == dense_reads(50, 1024) / 4
    assert costs.seconds == 1024 * 1.0 / 100  # the pace is known all the same


def test_no_chain_is_predicted_to_cost_more_than_the_full_cache_of_this_runs_prompts():
    """Where the earlier ones were of other problems: else the base point would not be within 1x."""
    known = of(*(sample(f"p{i}", method="vanilla", CR=1.0, tokens=1024) for i in range(4)))
    short = TaskShape("mini_aime", 5, 1024, (512, 1024))
    predictor = Predictor(100, known)
    base, source = predictor.predict_chain(short, VANILLA, 1024)
    assert source == measured_costs.PILOT
    assert (base.kv_reads, base.peak_kv) == (dense_reads(5, 1024), dense_peak(5, 1024))
    plan = make_plan(Budget.parse("1x"), GRID, [short], [VANILLA], 100, predictor)
    assert (1, 1024) in {(point.W, point.L) for point in plan.points}


def test_closed_form_where_nothing_is_known():
    costs, source = Predictor(100).predict_chain(TASK, DMS, 512)
    assert (costs, source) == (Costs.predict(TASK, 1, 512, 8.0, 100), CLOSED)
    assert Predictor(100, of(sample(task="other"))).predict_chain(TASK, VANILLA, 512)[1] == CLOSED


def test_what_a_selector_does_not_read_it_holds_all_the_same():
    for arm in (Arm("quest", 8.0), Arm("quest", 1.0, kv_budget=64)):
        costs, _ = Predictor(100).predict_chain(TASK, arm, 512)
        evicting, _ = Predictor(100).predict_chain(TASK, replace(arm, method="tova"), 512)
        full, _ = Predictor(100).predict_chain(TASK, VANILLA, 512)
        assert costs.kv_reads == evicting.kv_reads < full.kv_reads
        assert (costs.peak_kv, costs.peak_bytes) == (full.peak_kv, full.peak_bytes)
    selectors = {name for name in registry.available() if registry.describe(name).kind == "selector"}
    assert selectors == set(SELECTORS)


def test_short_chains_let_more_points_fit_and_longer_ones_dominate():
    """Chains of 300 tokens: L = 512, 1024 and 2048 cost the same, so the longest stands for them; 256 is cheaper."""
    known = of(*(sample(f"p{i}", tokens=300) for i in range(4)))
    closed = make_plan(Budget.parse("1x"), GRID, [TASK], [VANILLA], 100)
    plan = make_plan(Budget.parse("1x"), GRID, [TASK], [VANILLA], 100, Predictor(100, known))
    assert plan.ceilings == closed.ceilings == {"mini_aime": dense_reads(50, 1024)}
    assert {p.L: p.W for p in closed.points} == {256: 8, 512: 2, 1024: 1}
    assert {p.L: p.W for p in plan.points} == {256: 8, 2048: 8}
    assert plan.n_dominated == 8
    assert plan.chains(VANILLA, "mini_aime") == [(c, 2048) for c in range(8)]
    assert plan.max_tokens(VANILLA, {"mini_aime": 2}) == 2 * 8 * 2048
    assert plan.expected_tokens(VANILLA, {"mini_aime": 2}) == pytest.approx(2 * 8 * 300)
    everything = make_plan(Budget.parse("all"), GRID, [TASK], [VANILLA], 100, Predictor(100, known))
    assert (len(everything.points), everything.n_dominated) == (16, 0)


def test_compression_that_failed_lets_fewer_points_fit():
    known = of(*(sample(f"p{i}", method="dms", CR=8.0, tokens=4096) for i in range(4)))
    lines = {key: MeasuredCosts(e.source, tuple(grown(chain, 4) for chain in e.chains)) for key, e in known.items()}
    closed = make_plan(Budget.parse("1x"), GRID, [TASK], [DMS], 100)
    plan = make_plan(Budget.parse("1x"), GRID, [TASK], [DMS], 100, Predictor(100, lines))
    assert {p.L: p.W for p in closed.points} == {256: 8, 512: 8, 1024: 8, 2048: 2}
    assert {p.L: p.W for p in plan.points} == {256: 8, 512: 4, 1024: 2}


def grown(chain, factor):
    """The chain, if it had read more by a factor."""
    return replace(chain, kv_reads=tuple(factor * reads for reads in chain.kv_reads))


def test_domination_needs_an_equal_arm_and_no_higher_cost():
    def point(W, L, cost, arm=VANILLA):
        return PlannedPoint("t", arm, W, L, Costs(cost, cost, cost, cost))

    assert is_dominated(point(2, 512, 10), [point(2, 1024, 10)], "kv_reads")
    tova = Arm(
        "tova", 4.0, length_invariant=False
    )  # whose budget depends on L: a longer chain is no longer one of the same rule
    assert not is_dominated(point(2, 512, 10, tova), [point(2, 1024, 10, tova)], "kv_reads")
    assert is_dominated(point(2, 512, 10, tova), [point(4, 512, 9, tova)], "kv_reads")
    assert is_dominated(point(2, 512, 10), [point(4, 512, 9)], "kv_reads")
    for other in (point(2, 512, 10), point(2, 1024, 11), point(4, 256, 9), point(1, 2048, 1)):
        assert not is_dominated(point(2, 512, 10), [other], "kv_reads")


def test_seconds():
    """A measured second per 100 tokens: 3 s hold one chain of 300 tokens."""
    known = of(*(sample(f"p{i}", tokens=300, seconds=3.0) for i in range(4)))
    plan = make_plan(Budget.parse("seconds=6.5"), GRID, [TASK], [VANILLA], 100, Predictor(100, known))
    assert {p.L: p.W for p in plan.points} == {256: 2, 2048: 2}
    relative = make_plan(Budget.parse("1x", "seconds"), GRID, [TASK], [VANILLA], 100, Predictor(100, known))
    assert relative.ceilings["mini_aime"] == pytest.approx(10.24)
    elsewhere = Predictor(100, of(sample(), timed=False))
    with pytest.raises(BudgetError, match="--dry-run --gpu"):
        make_plan(Budget.parse("seconds=6"), GRID, [TASK], [VANILLA], 100, elsewhere)
    with pytest.raises(BudgetError, match="add vanilla to --method"):
        make_plan(Budget.parse("8x", "seconds"), GRID, [TASK], [DMS], 100)
    planned_for = Predictor(100, known, speed=lambda chain: chain.tokens / 10)
    assert planned_for.predict_chain(TASK, VANILLA, 2048)[0].seconds == 30


INFO = {
    "schema": 1,
    "config": {"model": "mini", "temperature": 0.8, "budget": "8x", "seeds": [0]},
    "tasks": {"mini_aime": "1.0"},
    "checkpoints": {"vanilla": "abc", "dms 8×": "def"},
    "params": {"vanilla": {"cr": 1.0}, "dms 8×": {"cr": 8.0}},
    "hardware": {"cores": 2},
}


def store(folder, info, *lines, finished=True):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    write_samples(folder / "samples.jsonl", lines)
    if finished:
        (folder / "points.csv").touch()


def test_earlier_runs_tell_of_the_same_model_method_and_task(tmp_path):
    other = {**INFO["config"], "temperature": 0.1}
    store(tmp_path / "a", INFO, sample("p"), sample("q"), sample("p", method="dms", CR=8.0))
    more = {**INFO, "config": {**INFO["config"], "budget": "2x", "seeds": [7]}, "hardware": {"cores": 64}}
    store(tmp_path / "b", more, sample("r"))
    store(tmp_path / "hotter", {**INFO, "config": other}, sample("x"))
    store(tmp_path / "version", {**INFO, "tasks": {"mini_aime": "2.0"}}, sample("x"))
    store(tmp_path / "weights", {**INFO, "checkpoints": {"vanilla": "xyz"}}, sample("x"))
    store(tmp_path / "unfinished", INFO, sample("x"), finished=False)
    store(tmp_path / "broken", INFO)
    (tmp_path / "broken" / "samples.jsonl").write_text('{"schema": 1}\n')
    store(tmp_path / "own", INFO, sample("x"))
    found = measured_costs.of_earlier_runs(tmp_path, tmp_path / "own", INFO)
    assert set(found) == {(VANILLA, "mini_aime"), (DMS, "mini_aime")}
    vanilla, dms = found[VANILLA, "mini_aime"], found[DMS, "mini_aime"]
    assert {chain.problem for chain in vanilla.chains} == {"p", "q", "r"}
    assert (vanilla.source, vanilla.timed, dms.timed) == (measured_costs.EARLIER, False, True)
    assert (vanilla.pace, dms.pace) == (1 / 300, 1 / 300)  # by those of this machine alone
    assert measured_costs.of_earlier_runs(tmp_path / "nowhere", None, INFO) == {}


def test_predicted_against_measured():
    points = tuple(PlannedPoint("t", VANILLA, W, 256, Costs(100.0 * W, 1, 1, 1), measured_costs.PILOT) for W in (1, 2))
    found = pd.DataFrame(
        [{"task": "t", "method": "vanilla", "CR": 1.0, "W": W, "L": 256, "kv_reads": 150.0 * W} for W in (1, 2)]
    )
    for ceiling, verdict in (
        (300, "all 2 points of the plan are within"),
        (250, "1 of 2 points of the plan cost more"),
    ):
        console = Console(width=140, record=True)
        with console.capture() as text:
            plan_tables.print_predictions(Plan(Budget.parse("kv_reads=9"), {"t": ceiling}, points), found, console)
        assert "100 150 ×1.50" in text.get()
        assert "pilot" in text.get()
        assert verdict in text.get()
    assert math.isnan(points[0].costs.on("seconds"))


def test_a_forced_answer_counts_where_a_chain_is_cut_off_and_nowhere_else():
    task = replace(TASK, answer=9)
    closed, _ = Predictor(100).predict_chain(task, VANILLA, 512)
    assert (closed.tokens, closed.kv_reads) == (521, dense_reads(task.prompt_tokens, 521))
    known = of(sample(tokens=300, prompt_tokens=50), sample("p1", tokens=4096, prompt_tokens=50))
    for length, tokens in ((256, (265, 265)), (512, (300, 521)), (2048, (300, 2057))):
        cost, _ = Predictor(100, known).predict_chain(task, VANILLA, length)
        assert cost.tokens == sum(tokens) / 2
        assert cost.kv_reads == pytest.approx(sum(dense_reads(50, n) for n in tokens) / 2)
        assert cost.peak_kv == pytest.approx(sum(dense_peak(50, n) for n in tokens) / 2)


def test_methods_whose_chains_are_alike_are_planned_with_one_a_problem(tmp_path):
    model = str(architectures.write(tmp_path / "model", "qwen3"))
    settings = {"model": model, "methods": ["vanilla", "random"], "tasks": ["niah_single"], "context": [512]}
    run = dry_run.plan_dry_run(load.make_config({**settings, "budget": "all"}))
    widths = {method: {p.W for p in run.plan.points if p.arm.method == method} for method in ("vanilla", "random")}
    assert widths["vanilla"] == {1}
    assert widths["random"] == set(run.config.grid.widths) != {1}
