"""Budgets in tokens: a method runs at each, and every place that has a CR has them too."""

import json
from dataclasses import replace

import checkpoints
import commandline
import pandas as pd
import pytest
import synthetic_samples

from hyperscale import methods, results
from hyperscale.errors import ConfigError, MethodError
from hyperscale.gate.baseline import ArmRecord
from hyperscale.gate.from_runs import record_runs
from hyperscale.kv.trace import dense_peak, dense_reads
from hyperscale.methods.arm import Arm, compression_label
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.results.sample_file import format_line, parse
from hyperscale.run import verification
from hyperscale.run.config import load, resolve

BUDGETED = ["window", "streaming", "random", "tova", "h2o", "keydiff", "knorm", "triattention", "snapkv", "rkv"]


def resolved(**values):
    return resolve.resolve_config(load.make_config({"model": "mini", "methods": ["tova"], **values}))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_is_what_a_row_may_hold_at_any_length(name):
    method = methods.create(name, cr=1, budget=500)
    assert [method.allowance(100, tokens, L) for tokens in (2, 900) for L in (900, 9000)] == [500] * 4
    assert method.length_invariant
    assert method.params()["budget"] == 500
    assert "budget" not in methods.create(name, cr=4).params()
    # What is never evicted has room in any budget.
    assert methods.create(name, cr=1, budget=1, pin_prompt=True).allowance(100, 50, 900) > 100
    for wrong in (0, -3, 2.5, True, "many"):
        with pytest.raises(MethodError, match="budget of"):
            methods.create(name, cr=1, budget=wrong)


def test_arms_are_budgets_where_a_method_has_them():
    config = resolved(
        methods=["vanilla", "tova", "window"], crs=[4], params={"tova": {"budget": "1024,512", "per": "head"}}
    )
    small, large = (Arm("tova", 1.0, kv_budget=tokens) for tokens in (512, 1024))
    assert config.arms == [Arm("vanilla", 1.0), small, large, Arm("window", 4.0)]
    assert config.params_of(large) == {"budget": 1024, "per": "head"}
    assert (str(small), str(Arm("window", 4.0))) == ("tova 512 tokens", "window 4×")
    assert [compression_label(1.0, 512), compression_label(4.0, 0)] == ["512t", "4"]
    for value in (7, [7], "7"):
        assert resolved(params={"tova": {"budget": value}}).params["tova"]["budget"] == (7,)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        1.5,
        True,
        "",
        "12,",
        "many",
        "1e3",
        "1,024",
        "1Ki",
        "64;128",
        "9" * 5000,
        -0.0,
        [],
        [True],
        "512,512",
        2**31,
        None,
    ],
)
def test_budgets_that_are_none(value):
    with pytest.raises(ConfigError, match=r"--method-param tova\.budget"):
        resolved(params={"tova": {"budget": value}})


@pytest.mark.parametrize("name", ["dms", "dmc", "vanilla"])
def test_methods_without_a_budget_refuse_one(name):
    with pytest.raises(MethodError, match="no parameter 'budget'"):
        methods.create(name, cr=1, budget=64)
    with pytest.raises(ConfigError, match=f"{name} has no budget in tokens"):
        resolved(methods=[name], crs=[4], params={name: {"budget": 64}})


def test_what_has_no_effect_beside_a_budget_is_said(run, weights):
    with pytest.raises(ConfigError, match=r"tova\.rule has no effect beside tova\.budget"):
        resolved(params={"tova": {"budget": 64, "rule": "fixed"}})
    assert resolved(params={"tova": {"budget": 64}}).notes == []
    (note,) = resolved(params={"tova": {"budget": 64}}, crs=[4]).notes
    assert note.startswith("--cr has no effect")
    assert resolved(methods=["tova", "window"], params={"tova": {"budget": 64}}, crs=[4]).notes == []
    options = ("--model", weights, "--task", "mini_aime", "--limit", "2", "--length", "256", "--method", "tova")
    code, out, _ = run("run", *options, "--cr", "4", "--method-param", "tova.budget=64", "--dry-run")
    assert code == 0
    assert "--cr has no effect" in out


def test_a_ceiling_below_a_budget_says_what_to_change(run, weights):
    options = ("--model", weights, "--task", "mini_aime", "--limit", "2", "--length", "128", "--budget", "peak_kv=30")
    result = run("run", *options, "--method", "tova", "--method-param", "tova.budget=48", "--dry-run")
    commandline.fails(result, "nothing fits", "choose fewer tokens for tova.budget")


@pytest.mark.parametrize(
    ("method", "budget", "remark"),
    [("window", 8, "never evicts"), ("quest", 48, "never evicts"), ("tova", 9000, "nothing was compressed")],
)
def test_budgets_that_a_run_does_not_keep_or_does_not_need_are_pointed_out(run, weights, method, budget, remark):
    options = ("--model", weights, "--task", "mini_aime", "--limit", "2", "--length", "128", "--budget", "all")
    code, out, _ = run("run", *options, "--method", method, "--method-param", f"{method}.budget={budget}")
    assert code == 0
    assert remark in out


def test_the_closed_form_is_exact_for_rows_that_fill_their_budget():
    task = TaskShape("t", 40, 256, (256,))
    costs = Costs.predict(task, 2, 256, 1.0, 10, 100)
    reads = sum(min(40 + step, 100) for step in range(1, 256))
    assert (costs.kv_reads, costs.peak_kv, costs.peak_bytes) == (2 * reads, 200, 2000)
    # A budget that is never reached changes nothing; a prompt beyond it is over at the first step.
    assert Costs.predict(task, 1, 256, 1.0, 10, 10_000) == Costs.predict(task, 1, 256, 1.0, 10)
    assert Costs.predict(task, 1, 256, 1.0, 10, 20).kv_reads == 255 * 20


def test_a_sample_keeps_its_budget_and_is_another_chain():
    plain = synthetic_samples.sample(method="tova", CR=1.0)
    budgeted = replace(plain, kv_budget=64)
    assert parse(format_line(budgeted)) == budgeted
    assert b"kv_budget" not in format_line(plain)  # lines of runs without budgets are what they were
    assert len({plain.key, budgeted.key, replace(plain, kv_budget=65).key}) == 3
    (point, *_) = synthetic_samples.points([budgeted])
    assert point.label.endswith("-64t")
    assert pd.isna(point.row()["CR"])
    assert point.row()["kv_budget"] == 64


def test_realised_ratios_far_from_the_nominal_one_are_pointed_out():
    def compression(arm, realised, nominal=None):
        return verification.Compression(arm, 1, realised, realised, 1.0, nominal or arm.CR)

    cases = {1.0: (True, False), 3.3: (False, False), 4.0: (False, False), 5.9: (False, False), 17.2: (False, True)}
    for realised, flags in cases.items():
        found = compression(Arm("snapkv", 4.0), realised)
        assert (found.weak, found.strong) == flags
    # Near 1 the share of the reads that were saved decides.
    for ratio, realised, weak in ((2.0, 1.01, True), (1.2, 1.02, True), (1.2, 1.15, False), (1.05, 1.04, False)):
        assert compression(Arm("snapkv", ratio), realised).weak is weak
    assert not compression(Arm("vanilla", 1.0), 1.0).weak
    # A budget in tokens is held against what its rows would give.
    arm = Arm("tova", 1.0, kv_budget=64)
    for realised, flags in {9.0: (False, False), 3.0: (True, False), 19.0: (False, True)}.items():
        found = compression(arm, realised, 9.0)
        assert (found.weak, found.strong, found.unused) == (*flags, False)
    assert compression(arm, 1.0, 1.0).unused
    assert not compression(Arm("vanilla", 1.0), 1.0).unused


@pytest.mark.e2e
def test_a_run_at_budgets_from_the_command_to_the_gate(run, weights, tmp_path):
    options = ("--model", weights, "--task", "mini_aime", "--grid", "mini", "--budget", "all", "--limit", "9")
    options = ("run", *options, "--length", "256", "--method", "vanilla,tova", "--method-param", "tova.budget=48,96")
    code, out, err = run(*options, "--out", "made")
    assert (code, err) == (0, "")
    assert "tova 48 tokens" in out
    (made,) = results.read(tmp_path / "made")
    for sample in made.samples:
        if sample.method == "tova":
            dense = dense_peak(sample.prompt_tokens, sample.tokens), dense_reads(sample.prompt_tokens, sample.tokens)
            assert sample.whole.peak_kv <= min(sample.kv_budget, dense[0])
            assert sample.whole.kv_reads <= min(sample.kv_budget * sample.tokens, dense[1])
            assert sample.params["budget"] == sample.kv_budget
    assert {sample.kv_budget for sample in made.samples} == {0, 48, 96}
    table = pd.read_csv(tmp_path / "made" / "points.csv")
    assert sorted(table.kv_budget.unique()) == [0, 48, 96]
    assert table[table.kv_budget > 0].CR.isna().all()
    plan = json.loads((tmp_path / "made" / "plan.json").read_text())
    assert {point.get("kv_budget", 0) for point in plan["points"]} == {0, 48, 96}
    # A second call finds everything done; the gate and the pictures know the budgets.
    before = (tmp_path / "made" / "samples.jsonl").read_bytes()
    assert run(*options, "--out", "made")[0] == 0
    assert (tmp_path / "made" / "samples.jsonl").read_bytes() == before
    record = record_runs([made])
    assert {arm.kv_budget for arm in record.arms} == {0, 48, 96}
    assert all(ArmRecord.model_validate(arm.model_dump()) == arm for arm in record.arms)
    assert run("gate", "made", "--write-baseline", "base.json")[0] == 0
    assert run("gate", "made", "--baseline", "base.json")[::2] == (0, "")
    assert [run(command, "made")[0] for command in ("plot", "report")] == [0, 0]
    assert "kv_budget" in (tmp_path / "made" / "report.html").read_text()
    # Another set of budgets is another run.
    commandline.fails(run(*options[:-1], "tova.budget=48", "--out", "made"), "made")


def test_an_interval_that_would_collapse_the_cache_is_refused_before_anything_runs(run, weights, tmp_path):
    pytest.importorskip("kvpress", reason="kvpress is not installed (docs/kvpress.md)")
    name = "kvpress:DecodingPress:KnormPress"
    options = ("run", "--model", weights, "--task", "mini_aime", "--limit", "2", "--method", name, "--cr", "8")
    options += ("--length", "256", "--method-param", f"{name}.compression_interval=512")
    for more in (("--out", "made"), ("--dry-run",)):
        commandline.fails(run(*options, *more), "its cache would collapse", "compression_interval below")
    assert not (tmp_path / "made").exists()
    with pytest.raises(MethodError, match="collapse"):
        methods.create(name, cr=1, budget=16)
    press = methods.create(name, cr=1, budget=100)
    assert (press.make_press(7, 5000).target_size, press.length_invariant) == (84, True)
    with pytest.raises(MethodError, match="no budget in tokens"):
        methods.create("kvpress:CompressionRatioDecodingPress:KnormPress", cr=4, budget=100)
