"""How many engines a run has, of how many GPUs."""

import pytest

from hyperscale import methods
from hyperscale.engines import registry
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.run import placement
from hyperscale.run.config import load, resolve
from hyperscale.run.placement import place_engines, plan_placement


def placed(device="cuda", engine="vllm", **settings):
    """A run's configuration on a machine."""
    config = resolve.resolve_config(load.make_config({"model": "mini", **settings}))
    return config.placed(device="cuda", dtype="bfloat16").model_copy(update={"device": device, "engine": engine})


@pytest.fixture
def gpus(monkeypatch):
    """A machine with GPUs of these names, which this one may not have."""

    def install(*names):
        monkeypatch.setattr(placement, "_visible_gpus", lambda: names)

    return install


@pytest.mark.parametrize(
    ("settings", "engines", "each", "used", "unused"),
    [
        ({}, 4, 1, "abcd", 0),
        ({"tensor_parallel": 2}, 2, 2, "abcd", 0),
        ({"tensor_parallel": 3}, 1, 3, "abc", 1),
        ({"gpus": 2}, 2, 1, "ab", 0),
        ({"engines": 3}, 3, 1, "abc", 0),
        ({"engines": 1, "gpus": 3}, 1, 1, "a", 0),
    ],
)
def test_gpus_are_shared_out(gpus, settings, engines, each, used, unused):
    gpus(*"abcd")
    found = place_engines(placed(**settings))
    assert (found.engines, found.resources.gpus) == (engines, each)
    assert (found.gpus, found.unused) == (tuple(used), unused)
    assert found.is_pool == (engines > 1)


def test_a_machine_with_one_gpu_and_one_that_is_named_have_one_engine_in_the_runs_process(gpus):
    gpus("a")
    assert not place_engines(placed()).is_pool
    gpus(*"abcd")
    assert not place_engines(placed("cuda:2")).is_pool
    assert place_engines(placed("cuda:2")).describe() is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gpus": 5}, "5 GPUs are asked for, and this machine has 4"),
        ({"engines": 3, "tensor_parallel": 2}, "6 GPUs are asked for, and this machine has 4"),
        ({"tensor_parallel": 8}, "--tensor-parallel 8: this machine offers 4 GPUs"),
        ({"device": "cuda:1", "gpus": 2}, "--device cuda:1 is one GPU"),
        ({"device": "cuda:1", "engines": 2}, "--device cuda:1 is one GPU"),
        ({"engine": "torch", "tensor_parallel": 2}, "this run is on torch"),
        ({"device": "cpu", "gpus": 2}, "need GPUs, and this run is on the CPU"),
    ],
)
def test_what_cannot_be_placed_is_refused(gpus, settings, text):
    gpus(*"abcd")
    with pytest.raises(ConfigError, match=text):
        place_engines(placed(**settings))


def test_the_plan_says_how_many_engines_there_are(gpus):
    gpus(*"abcde")
    assert place_engines(placed()).describe() == "Engines: 5 engines side by side on a GPU each"
    two = place_engines(placed(tensor_parallel=2)).describe()
    assert two == "Engines: 2 engines side by side of 2 GPUs each; one GPU is left over"
    assert place_engines(placed(tensor_parallel=4)).describe() == "Engines: one engine of 4 GPUs; one GPU is left over"
    assert place_engines(placed("cpu", engines=2)).describe() == "Engines: 2 engines side by side"
    assert place_engines(placed("cpu")).describe() is None
    # Of a machine that is not looked at: what was asked for.
    assert plan_placement(placed(gpus=8, tensor_parallel=2)).engines == 4
    assert plan_placement(placed(engine="torch")).engines == 1


def test_visible_gpus_keep_their_names(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f")
    assert placement._visible_gpus() == ("5", "GPU-7f")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert placement._visible_gpus() == ("0", "1")


@pytest.mark.parametrize(
    ("method", "ranks", "device", "reason"),
    [
        (
            methods.create("tova", cr=4),
            2,
            "cuda",
            "tova looks at all heads of a layer or counts them, and does not run",
        ),
        (methods.create("window", cr=4, pin_prompt=False), 2, "cuda", "window looks at all heads"),
        (methods.create("random", cr=4), 2, "cuda", "random looks at all heads"),
        (methods.create("window", cr=4), 3, "cuda", "--tensor-parallel 3 does not divide the 4 KV heads of model"),
        (methods.create("window", cr=4), 2, "cuda", None),
        (methods.create("random", cr=4), 2, "cpu", None),
        (methods.create("vanilla", cr=1), 3, "cuda", None),  # vLLM's own, which says so itself
    ],
)
def test_what_gpus_that_share_an_engine_cannot_run(method, ranks, device, reason):
    provider, config = registry.get("vllm"), {"num_key_value_heads": 4, "num_attention_heads": 8}
    if reason is None:
        provider.check_sharing([method], "model", config, ranks, device)
    else:
        with pytest.raises(HyperscaleError, match=reason):
            provider.check_sharing([method], "model", config, ranks, device)
