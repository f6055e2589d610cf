"""How many engines a run has, of how many GPUs."""

from types import SimpleNamespace

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


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of machines with so many GPUs."""

    def install(*counts):
        nodes = [{"Alive": True, "Resources": {"CPU": 8.0, **({"GPU": float(n)} if n else {})}} for n in counts]
        nodes.append({"Alive": False, "Resources": {"GPU": 64.0}})
        connected = SimpleNamespace(nodes=lambda: nodes)
        monkeypatch.setattr("hyperscale.executors.ray.connect", lambda address: connected)

    return install


@pytest.mark.parametrize(
    ("counts", "settings", "engines", "unused"),
    [
        ((0, 8, 8), {}, 16, 0),
        ((0, 8, 8), {"tensor_parallel": 8}, 2, 0),
        ((3, 3), {"tensor_parallel": 2}, 2, 2),  # a third engine would find its GPUs on two machines
        ((3, 3), {"tensor_parallel": 2, "gpus": 6}, 2, 2),
        ((3, 3), {"tensor_parallel": 2, "gpus": 3}, 1, 1),
        ((8, 4), {"tensor_parallel": 8}, 1, 4),
        ((8, 4), {"tensor_parallel": 4, "engines": 3}, 3, 0),
    ],
)
def test_the_gpus_of_an_engine_are_on_one_machine_of_a_cluster(cluster, counts, settings, engines, unused):
    cluster(*counts)
    found = place_engines(placed(executor="ray", **settings))
    assert (found.engines, found.unused, found.gpus) == (engines, unused, ())
    assert found.resources.gpus == settings.get("tensor_parallel", 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"tensor_parallel": 8},
            r"2 machines here, of at most 4 GPUs, have room for 0 such engines: pass --tensor-parallel 4 or less",
        ),
        ({"tensor_parallel": 3, "engines": 3}, "9 GPUs are asked for, and the cluster has 8"),
        ({"tensor_parallel": 8, "engines": 1}, "pass --tensor-parallel 4 or less"),
        ({"tensor_parallel": 9}, "--tensor-parallel 9: the cluster offers 8 GPUs"),
        ({"gpus": 9}, "9 GPUs are asked for, and the cluster has 8"),
    ],
)
def test_what_no_machine_of_a_cluster_has_room_for_is_refused(cluster, settings, text):
    cluster(0, 4, 4)
    with pytest.raises(ConfigError, match=text):
        place_engines(placed(executor="ray", **settings))
    cluster(3, 3)
    with pytest.raises(
        ConfigError, match="2 machines here, of at most 3 GPUs, have room for 2 such engines: pass a smaller --engines"
    ):
        place_engines(placed(executor="ray", tensor_parallel=2, engines=3))
    cluster(0)
    with pytest.raises(ConfigError, match="the cluster has no GPUs"):
        place_engines(placed(executor="ray"))


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
