"""Quantised caches in vLLM: which go with what, the bytes of an entry, and a whole run of two of them."""

from types import SimpleNamespace
from typing import get_args

import pandas as pd
import pytest
from commandline import caller
from vllm_engines import needs_vllm

from hyperscale import methods, results
from hyperscale.engines import registry
from hyperscale.engines.vllm import cache_types
from hyperscale.errors import ConfigError
from hyperscale.methods.arm import Arm
from hyperscale.models.shape import Shape
from hyperscale.planning.costs import Costs, TaskShape
from hyperscale.planning.prediction import Predictor
from hyperscale.run import dry_run
from hyperscale.run.config import load
from hyperscale.run.config.schema import RunConfig

provider = registry.get("vllm")


def test_the_setting_has_every_name_that_an_engine_has():
    names = {name for engine in registry.PROVIDERS for name in registry.get(engine).kv_dtypes}
    assert set(get_args(RunConfig.model_fields["kv_dtype"].annotation)) == names


@pytest.mark.parametrize(
    ("kv_dtype", "chosen", "reason"),
    [
        ("fp8", ["vanilla", "dms", "tova"], None),
        ("fp8_e5m2", ["vanilla"], None),
        ("turboquant_4bit_nc", ["vanilla"], None),
        ("int8", ["vanilla"], "--kv-dtype int8 is the torch engine's: leave --engine vllm out, or choose one of"),
        ("int8", ["dms"], "leave --engine vllm out, or pass --kv-dtype fp8"),
        ("turboquant_4bit_nc", ["vanilla", "dms"], "run vanilla alone with it, or dms with --kv-dtype fp8"),
        ("fp8_e5m2", ["dms"], "only vanilla runs on"),
    ],
)
def test_what_goes_together(kv_dtype, chosen, reason):
    found = provider.explain_kv_dtype(kv_dtype, chosen)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_a_cpu_has_fewer_types():
    vanilla = [methods.create("vanilla", cr=1)]
    provider.check_methods(vanilla, "cpu", "fp8")
    with pytest.raises(ConfigError, match="no cache of the type turboquant_k8v4 on the CPU: pass --device cuda"):
        provider.check_methods(vanilla, "cpu", "turboquant_k8v4")


def test_bytes_of_an_entry():
    shape = Shape(10, 2, 128)
    heads, full = 2 * 10, 2 * 128 * 2
    own = {name: provider.entry_bytes(shape, "vanilla", "bfloat16", name) for name in provider.kv_dtypes}
    assert own["auto"] == full * heads
    assert own["fp8"] == own["fp8_e5m2"] == 256 * heads
    assert own["int8_per_token_head"] == own["fp8_per_token_head"] == (256 + 8) * heads
    assert own["int4_per_token_head"] == (128 + 8) * heads
    # Two layers at either end stay as they are.
    assert own["turboquant_k8v4"] == 2 * (4 * full + 6 * (128 + 64 + 4))
    assert own["turboquant_3bit_nc"] == 2 * (4 * full + 6 * (48 + 2 + 48 + 4))
    assert provider.entry_bytes(shape, "dms", "bfloat16", "fp8") == (256 + 4) * heads
    assert registry.get("torch").entry_bytes(shape, "vanilla", "bfloat16", "fp8") == (256 + 4) * heads


def test_predictions_count_the_bytes_of_each_method():
    predictor = Predictor(260, bytes_of_method={"vanilla": 256, "dms": 260})
    task = TaskShape("t", 100, 8, (8,))
    for method, size in (("vanilla", 256), ("dms", 260), ("tova", 260)):
        costs, _ = predictor.predict_chain(task, Arm(method, 1.0), 8)
        assert costs == Costs.predict(task, 1, 8, 1.0, size)


@needs_vllm
def test_a_plan_counts_the_bytes_of_each_method():
    values = {"model": "mini", "methods": ("vanilla", "dms"), "crs": (8,), "budget": "all", "limit": 2}
    values |= {"engine": "vllm", "device": "cpu"}
    (full, _), (own, lists) = (
        dry_run.plan_dry_run(load.make_config({**values, "kv_dtype": kind})).needs for kind in ("auto", "fp8")
    )
    assert own.chain_bytes / full.chain_bytes == pytest.approx(1 / 4)
    assert lists.chain_bytes / full.chain_bytes == pytest.approx(34 / 128 / 8)


@pytest.mark.e2e
@needs_vllm
def test_bytes_are_vllms_own():
    from vllm.model_executor.layers.quantization.turboquant.config import TurboQuantConfig

    assert cache_types.installed_cache_types() == cache_types.CACHE_TYPES
    for head_dim in (64, 96, 128):
        for name in cache_types._TURBOQUANT:
            slot = TurboQuantConfig.from_cache_dtype(name, head_dim).slot_size_aligned
            assert cache_types._pair_bytes(name, head_dim) == slot
    for layers in (1, 2, 3, 4, 6, 28):
        model = SimpleNamespace(is_hybrid=False, hf_text_config=SimpleNamespace(num_hidden_layers=layers))
        plain = len(TurboQuantConfig.get_boundary_skip_layers(model))
        packed = (layers - plain) * cache_types._pair_bytes("turboquant_k3v4_nc", 64)
        expected = 2 * (packed + plain * 2 * 64 * 4)
        assert cache_types.entry_bytes(Shape(layers, 2, 64), "float32", "turboquant_k3v4_nc") == expected


RUN = (
    *("run", "--model", "mini", "--task", "mini_aime", "--task", "mini_gpqa", "--limit", "2", "--cr", "8"),
    *("--length", "64", "--budget", "all", "--kv-dtype", "fp8"),
)


@pytest.mark.e2e
@needs_vllm
def test_a_run_in_fp8(monkeypatch, capsys, tmp_path):
    """DMS's chains are the torch engine's; vanilla has vLLM's own cache; both count their bytes."""
    call = caller(monkeypatch, capsys, tmp_path)
    for engine, method in (("vllm", "vanilla,dms"), ("torch", "dms")):
        code, _, err = call(*RUN, "--method", method, "--engine", engine, "--out", tmp_path / engine)
        assert code == 0, err
    (ours,), (theirs,) = results.read(tmp_path / "vllm"), results.read(tmp_path / "torch")
    expected = {sample.key: sample for sample in theirs.samples}
    found = {sample.key: sample for sample in ours.samples}
    assert {sample.kv_dtype for sample in found.values()} == {"fp8"}
    head_dim, lists = 32, 6 * 4
    sizes = {"vanilla": 2 * head_dim * lists, "dms": 2 * (head_dim + 2) * lists}
    assert {(sample.method, sample.kv_entry_bytes) for sample in found.values()} == set(sizes.items())
    for key, sample in expected.items():
        assert found[key].text == sample.text
        assert [(cut.kv_reads, cut.peak_kv) for cut in found[key].cuts] == [
            (cut.kv_reads, cut.peak_kv) for cut in sample.cuts
        ]
    table = pd.read_csv(tmp_path / "vllm" / results.POINTS)
    for method, size in sizes.items():
        points = table[table["method"] == method]
        assert len(points)
        assert (points["peak_bytes"] / points["peak_kv"] - size).abs().max() < 1e-6 * size
