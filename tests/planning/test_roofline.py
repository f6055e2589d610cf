import math

import pytest

from hyperscale import models
from hyperscale.errors import ConfigError
from hyperscale.models.shape import Shape, shape_from_config
from hyperscale.planning import roofline
from hyperscale.planning.costs import Costs
from hyperscale.planning.roofline import GIB, Gpu, Roofline, find_gpu, identify_gpu, known_gpus

LLAMA = Shape(32, 8, 128, 8030261248, heads=32, embedding=128256 * 4096)
H100 = find_gpu("h100")


@pytest.mark.parametrize(("batch", "entries"), [(1, 1000), (64, 8192), (256, 512), (1024, 16)])
def test_the_papers_formula(batch, entries):
    """Appendix I of arXiv 2506.05345, Llama 3.1 8B on an H100."""
    line = Roofline(H100, LLAMA, "bfloat16")
    flops, read = 1.5e10 * batch + 5.24e5 * batch * entries, 1.5e10 + 1.31e5 * batch * entries
    assert line.step_flops(batch, entries) == pytest.approx(flops, rel=2e-3)
    assert line.step_bytes(batch, entries) == pytest.approx(read, rel=2e-3)
    assert line.step_seconds(batch, entries) == pytest.approx(max(flops / 989.5e12, read / 3.35e12), rel=2e-3)
    assert line.bound(batch, entries) == ("compute" if flops / 989.5e12 > read / 3.35e12 else "memory")


def test_both_bounds_occur():
    line = Roofline(H100, LLAMA, "bfloat16")
    assert (line.bound(1, 1000), line.bound(1024, 16)) == ("memory", "compute")


def test_batch_and_seconds_of_a_chain():
    """A vanilla chain of 8K on an H100: 1 GiB of cache, (0.9 · 80 GiB - 14.96 GiB) holds 57."""
    line = Roofline(H100, LLAMA, "bfloat16")
    costs = Costs(4096.0 * 8191, 8192, 8192 * 131072, 8192)
    assert line.max_batch(costs) == int(0.9 * 80 - 8030261248 * 2 / GIB) == 57
    assert line.chain_seconds(costs, 64) == pytest.approx(8192 * line.step_seconds(57, 4096) * 64 / 57)  # 7 of 64 wait
    assert line.chain_seconds(costs, 8) == pytest.approx(8192 * line.step_seconds(8, 4096))
    small = Roofline(find_gpu("16GiB"), LLAMA, "bfloat16")
    assert small.max_batch(costs) == 0
    assert small.chain_seconds(costs, 8) == math.inf


def test_less_cache_is_faster_and_more_of_it_fits():
    line = Roofline(H100, LLAMA, "bfloat16")
    dense = Costs(4096.0 * 8191, 8192, 8192 * 131072, 8192)
    sparse = Costs(512.0 * 8191, 1024, 1024 * 131072, 8192)
    assert line.max_batch(sparse) == pytest.approx(8 * line.max_batch(dense), rel=0.02)
    assert line.chain_seconds(sparse, 57) < line.chain_seconds(dense, 57) / 2


def test_names():
    assert find_gpu("B200") is known_gpus()["B200"]
    assert find_gpu("rtx 4090").name == find_gpu("RTX-4090").name == "RTX4090"
    assert find_gpu("48GiB") == Gpu("48GiB", 48 * GIB)
    assert find_gpu("48GB").memory == 48e9
    for text in ("abacus", "0GiB", "48"):
        with pytest.raises(ConfigError, match="choose one of H100, "):
            find_gpu(text)
    assert {"H100", "H200", "A100", "B200"} <= set(known_gpus())


@pytest.mark.parametrize(
    ("device", "memory", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 79.2, "H100"),
        ("NVIDIA H100 PCIe", 79.2, "H100-PCIe"),
        ("NVIDIA H200", 139.8, "H200"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "A100-40"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "A100"),
        ("NVIDIA GeForce RTX 4090", 23.6, "RTX4090"),
        ("NVIDIA L4", 22.0, "L4"),
        ("NVIDIA L40S", 44.5, "L40S"),
    ],
)
def test_what_the_driver_calls_a_gpu(device, memory, name):
    found = identify_gpu(device, memory * GIB)
    assert (found.name, found.memory) == (device, memory * GIB)
    assert (found.bandwidth, found.flops) == (known_gpus()[name].bandwidth, known_gpus()[name].flops)


def test_a_gpu_or_model_without_figures_has_no_roofline():
    assert identify_gpu("Abacus 9", 1e9).bandwidth is None
    assert Roofline.of(None, LLAMA, "bfloat16") is None
    assert Roofline.of(find_gpu("48GiB"), LLAMA, "bfloat16") is None
    assert Roofline.of(H100, Shape(32, 8, 128), "bfloat16") is None
    assert Roofline.of(H100, LLAMA, "bfloat16") is not None


def test_unknown_query_heads_hardly_matter():
    """The registry's shapes say nothing of query heads: decoding waits for memory whatever they are."""
    shape = models.find("llama-3.1-8b").shape
    one, other = (Roofline(H100, s, "bfloat16") for s in (shape, LLAMA))
    assert one.step_seconds(64, 8192) == pytest.approx(other.step_seconds(64, 8192), rel=0.02)


def test_a_configuration_tells_heads_and_embedding():
    raw = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "num_hidden_layers": 32}
    raw |= {"vocab_size": 128256}
    assert shape_from_config({**raw, "tie_word_embeddings": False}, "x", 8030261248) == LLAMA
    assert shape_from_config({**raw, "tie_word_embeddings": True}, "x").embedding == 0


def test_a_malformed_file_of_gpus(monkeypatch, tmp_path):
    known_gpus.cache_clear()
    monkeypatch.setattr(roofline, "_FILE", tmp_path / "gpus.yaml")
    (tmp_path / "gpus.yaml").write_text("H1: {memory: 80, bandwidth: 3, tflops: {bfloat16: 9}}\nH2: {memory: big}\n")
    with pytest.raises(ConfigError, match=r"gpus.yaml, line 2: memory must be a number, got 'big': a GPU has memory"):
        known_gpus()


def test_gpus_that_share_an_engine_count_together():
    gpu = roofline.find_gpu("h100")
    both = gpu.times(2)
    assert gpu.times(1) is gpu
    assert both.name == f"2 × {gpu.name}"
    assert (both.memory, both.bandwidth) == (2 * gpu.memory, 2 * gpu.bandwidth)
    assert dict(both.flops) == {dtype: 2 * figure for dtype, figure in gpu.flops}
