"""What `hyperscale retrofit --dry-run` says of each recipe: memory as the training's own estimate, work, and time."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from transformers import Qwen2Config

from hyperscale.cli.commands import retrofit
from hyperscale.cli.display.retrofit_plan import print_retrofit_plan
from hyperscale.errors import RetrofitError
from hyperscale.planning.retrofit_plan import first_fitting, plan_retrofit, step_flops
from hyperscale.planning.roofline import GIB, Gpu, find_gpu
from hyperscale.retrofit.memory_estimate import count_parameters, estimate_memory
from hyperscale.retrofit.settings import RetrofitSettings

GIVEN = {"model": "m", "data": "text.jsonl", "out": "out"}
#: The shape of a 1.5 B model.
SHAPE = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 131072,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A configuration without weights: a plan needs no more."""
    path = tmp_path_factory.mktemp("model")
    Qwen2Config(**SHAPE, architectures=["Qwen2ForCausalLM"]).save_pretrained(path)
    return path


def plan(folder, gpu, **values):
    settings = RetrofitSettings.from_options({**GIVEN, **values})
    return plan_retrofit(settings, str(folder), find_gpu(gpu))


def test_recipes_take_what_the_training_would(folder):
    paper, lora, adapters = plan(folder, "h200")
    assert (paper.recipe, lora.recipe, adapters.recipe) == ("paper", "lora", "adapters")
    # Seven units of the ratio at 100 steps, and 150 steps that end it, which adapters do not have.
    assert (paper.steps, lora.steps, adapters.steps) == (850, 850, 700)
    assert paper.tokens == 850 * 16 * 8192
    assert paper.fits
    assert adapters.fits
    assert paper.memory.weights == 9 * adapters.memory.weights
    assert adapters.memory.weights < lora.memory.weights < 1.1 * adapters.memory.weights
    assert first_fitting((paper, lora, adapters)) is paper
    # The measured speed that the forecast stands on.
    assert paper.tokens / paper.hours / 3600 == pytest.approx(19_700, rel=0.2)
    assert 0.6 < (adapters.hours / adapters.tokens) / (paper.hours / paper.tokens) < 0.9


def test_the_first_that_fits_is_taken(folder):
    taken = {gpu: first_fitting(plan(folder, gpu)) for gpu in ("H200", "L4", "2GiB")}
    assert {gpu: each and each.recipe for gpu, each in taken.items()} == {
        "H200": "paper",
        "L4": "lora",
        "2GiB": None,
    }
    assert [each.hours for each in plan(folder, "24GiB")] == [None, None, None]
    (only,) = plan(folder, "L4", recipe_name="paper")
    assert not only.fits
    for train, recipe in (("lora", "lora"), ("all", "paper")):  # what is to train says which one is meant
        (only,) = plan(folder, "H200", train=train)
        assert (only.recipe, only.steps) == (recipe, 850)


def test_as_many_gpus_are_asked_for_as_the_training_would_take(folder):
    """The least number that may share the batches of a step and whose memory suffices, against the training's own."""
    (one,) = plan(folder, "L4", recipe_name="paper")
    assert one.gpus in (2, 4, 8, 16)  # what divides the 16 batches of a step
    config, length = Qwen2Config(**SHAPE), 8192
    memories = {
        count: estimate_memory(count_parameters(config), "float32", config, 1, length, gpus=count)
        for count in (1, 2, 4, 8, 16)
    }
    room = int(find_gpu("L4").memory)
    assert next(count for count, memory in memories.items() if memory.fits(room)) == one.gpus
    # So many at once: the same plan, and the hours of a fast one shared.
    (asked,) = plan(folder, "L4", recipe_name="paper", gpus=one.gpus)
    assert asked.fits
    assert (asked.gpus, asked.hours, asked.memory) == (one.gpus, one.hours, memories[one.gpus])
    (twice,) = plan(folder, "L4", recipe_name="paper", gpus=2 * one.gpus)
    assert twice.hours == pytest.approx(one.hours / 2)
    # Three batches cannot be dealt out to two.
    for refused in plan(folder, "L4", accumulate=3, gpus=2):
        assert "--accumulate 3 batches a step do not divide among 2 GPUs" in refused.refused
    out = io.StringIO()
    print_retrofit_plan(plan(folder, "L4", accumulate=3, gpus=2), find_gpu("L4"), Console(file=out, width=200), 2)
    assert "none fits" not in out.getvalue()
    # Where bfloat16 is what helps, it is named.
    (large,) = plan(folder, "L4", recipe_name="paper")
    smaller = f"{(large.memory.weights + large.memory.activations) * 0.9 / GIB:.3f}GiB"
    print_retrofit_plan(plan(folder, smaller, recipe_name="paper"), find_gpu("L4"), Console(file=out, width=200))
    assert "--weights bfloat16" in out.getvalue()
    out = io.StringIO()
    print_retrofit_plan(plan(folder, smaller), find_gpu("L4"), Console(file=out, width=200))
    assert out.getvalue().splitlines()[-2:] == [
        "--recipe lora is taken: the first that fits",
        "--recipe paper fits with --weights bfloat16",
    ]
    out = io.StringIO()
    alone = [one, *plan(folder, "2GiB")[1:]]
    print_retrofit_plan(alone, find_gpu("L4"), Console(file=out, width=100))
    assert f"none fits: pass --gpus {one.gpus}," in out.getvalue()
    assert "GPUs needed" in out.getvalue()
    assert "cost" not in out.getvalue()
    print_retrofit_plan(alone, find_gpu("L4"), Console(file=out, width=100), gpu_price=2.5)
    row = next(line for line in reversed(out.getvalue().splitlines()) if line.startswith("paper"))
    assert float(row.split()[-1].replace(",", "")) == pytest.approx(one.gpus * one.hours * 2.5, rel=0.01, abs=0.01)


def test_memory_is_that_of_the_attention_that_the_gpu_can_run(folder):
    """FlexAttention, which holds more, where a block has too little shared memory for the project's own kernels."""
    config = Qwen2Config(**SHAPE)
    expected = [
        estimate_memory(count_parameters(config), "float32", config, 8, 8192, fused=fused) for fused in (False, True)
    ]
    assert expected[0].activations > expected[1].activations
    for gpu, fused in (("L40S", False), ("RTX4090", False), ("A100", True), ("H200", True), ("48GiB", True)):
        (paper,) = plan(folder, gpu, recipe_name="paper", rows=8)
        assert paper.memory == expected[fused], gpu


def test_the_gpu_that_is_there_tells_its_shared_memory(monkeypatch):
    found = SimpleNamespace(name="NVIDIA A30", total_memory=24 << 30, shared_memory_per_block_optin=163 << 10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    assert retrofit._find_own_gpu(None) == Gpu("NVIDIA A30", 24 << 30, shared_memory=163 << 10)


def test_what_does_not_go_is_told(folder):
    plans = plan(folder, "h200", gate="borrowed")
    assert plans[0].fits
    for refused, train in zip(plans[1:], ("lora", "gates"), strict=True):
        assert f"--train {train} needs --gate separate" in refused.refused
    out = io.StringIO()
    print_retrofit_plan(plans, find_gpu("h200"), Console(file=out, width=100))
    for name in ("lora", "adapters"):
        assert f"{name} does not go with these settings" in out.getvalue()
    assert "--recipe paper is taken" in out.getvalue()
    with pytest.raises(RetrofitError, match="--length 128 does not lie between"):
        plan(folder, "h200", length=128)


def test_work_of_a_token_is_that_of_its_weights_and_of_the_row_before_it():
    config = Qwen2Config(**SHAPE)
    weights = count_parameters(config)
    assert step_flops(config, weights, 0, frozen=False) == 10 * weights
    assert step_flops(config, weights, 0, frozen=True) == 8 * weights
    row = step_flops(config, weights, 8192, frozen=True) - 8 * weights
    assert row == 5.5 * 28 * 12 * 128 * 2 * 8192
