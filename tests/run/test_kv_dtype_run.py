"""A whole run over a quantised cache: what is stored, predicted, planned, compared and refused."""

import json

import checkpoints
import commandline
import pandas as pd
import pytest

from hyperscale import results
from hyperscale.models.shape import Shape
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.roofline import Roofline, find_gpu
from hyperscale.run import dry_run, prepare
from hyperscale.run.config import load, resolve
from hyperscale.run.config.schema import RunConfig

pytestmark = pytest.mark.e2e

#: The checkpoint's heads: 16 channels, 2 KV heads, 2 layers.
FULL, INT4, FP8 = 2 * 16 * 4 * 4, 2 * (8 + 4) * 4, 2 * (16 + 2) * 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def options(weights, *more):
    base = ("run", "--model", weights, "--task", "mini_aime", "--grid", "mini", "--budget", "0.1x", "--limit", "1")
    return (*base, *more)


def test_a_run_says_what_its_cache_was_kept_in(run, weights, tmp_path):
    assert run(*options(weights, "--out", "plain"))[0] == 0
    code, _, err = run(*options(weights, "--kv-dtype", "int4", "--out", "packed"))
    assert (code, err) == (0, "")
    (plain,), (packed,) = results.read(tmp_path / "plain"), results.read(tmp_path / "packed")
    assert plain.info["config"]["kv_dtype"] == "auto"
    assert packed.info["config"]["kv_dtype"] == "int4"
    assert {(s.kv_dtype, s.kv_entry_bytes) for s in plain.samples} == {("float32", FULL)}
    assert {(s.kv_dtype, s.kv_entry_bytes) for s in packed.samples} == {("int4", INT4)}
    assert any(a.whole.logprob != b.whole.logprob for a, b in zip(plain.samples, packed.samples, strict=True))
    points = [results.read(tmp_path / name)[0].folder / results.POINTS for name in ("plain", "packed")]
    for path, size in zip(points, (FULL, INT4), strict=True):
        table = pd.read_csv(path)
        assert (table["peak_bytes"] - table["peak_kv"] * size).abs().max() < 1e-6 * table["peak_bytes"].max()
    code, _, err = run(*options(weights, "--kv-dtype", "fp8", "--out", "packed"))
    assert (code, err.count("\n")) == (2, 1)
    assert 'kv_dtype was "int4", now "fp8"' in err


def test_the_plan_says_what_the_cache_is_kept_in(run, weights):
    code, out, _ = run(*options(weights, "--kv-dtype", "fp8", "--dry-run"))
    assert code == 0
    assert f"Cache: fp8; bytes of a (key, value) pair over all layers and heads: {FP8}, and {FULL} in float32" in out
    assert "Cache: " not in run(*options(weights, "--dry-run"))[1]


def test_wrong_types_are_refused(run, weights):
    code, _, err = run(*options(weights, "--kv-dtype", "int3"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --kv-dtype must be")
    assert "'int4'" in err


def test_presses_keep_a_cache_of_their_own(run, weights):
    """Whether kvpress is here or not: no run may call a full cache quantised."""
    more = ("--method", "vanilla,kvpress:DecodingPress:KnormPress", "--kv-dtype", "int8")
    code, _, err = run(*options(weights, *more))
    assert (code, err.count("\n")) == (2, 1)
    assert "kvpress:DecodingPress:KnormPress runs on transformers' cache" in err
    assert run(*options(weights, *more, "--dry-run"))[2] == err


def test_a_budget_of_bytes_holds_more_entries_of_fewer_bits(weights):
    def plan(kv_dtype, budget):
        asked = RunConfig(
            model=str(weights), tasks=("mini_aime",), grid="mini", budget=budget, axis="peak_bytes", limit=1
        )
        asked = load.make_config(asked.model_dump() | {"kv_dtype": kv_dtype})
        return prepare.prepare_run(asked, lambda text: None).plan

    full, packed = plan("auto", "1x"), plan("int4", "1x")
    assert packed.ceilings == full.ceilings  # the base point is a full cache, whatever this run's is kept in
    assert {(p.W, p.L) for p in full.points} < {(p.W, p.L) for p in packed.points}
    for point in packed.points:
        assert point.costs.peak_bytes == point.costs.peak_kv * INT4


def test_forecasts_and_the_roofline_count_the_bytes_of_the_cache():
    shape = Shape(32, 8, 128, 8 * 10**9, 32)
    full, packed = (Roofline.of(find_gpu("h100"), shape, "bfloat16", kind) for kind in ("auto", "int4"))
    extra = full.step_bytes(1, 1000) - full.step_bytes(1, 0), packed.step_bytes(1, 1000) - packed.step_bytes(1, 0)
    assert extra == (1000 * 2 * 128 * 2 * 256, 1000 * 2 * (64 + 16) * 256)
    assert packed.step_seconds(64, 20_000) < full.step_seconds(64, 20_000)
    chain = Costs.predict(TaskShape("t", 100, 8, (8,)), 1, 1000, 1.0, shape.entry_bytes("bfloat16", "fp8"))
    assert chain.peak_bytes == 1099 * 2 * 130 * 256
    values = {"model": "qwen-r1-7b", "tasks": ("mini_aime",), "budget": "all", "grid": "mini", "limit": 2}
    one, other = (
        dry_run.plan_dry_run(load.make_config({**values, "kv_dtype": kind}), "h100").needs[0]
        for kind in ("auto", "int8")
    )
    assert other.chain_bytes / one.chain_bytes == pytest.approx(130 / 256)


def test_a_folder_is_named_after_it(weights):
    asked = load.make_config({"model": str(weights), "kv_dtype": "int8"})
    assert asked.folder_name().endswith("-kvint8")
    assert "kv" not in load.make_config({"model": "x"}).folder_name()
    assert (
        json.loads(json.dumps(resolve.resolve_config(load.make_config({"kv_dtype": "int8"})).compared()))["kv_dtype"]
        == "int8"
    )
