"""An engine is a package and a line in the registry: what it states decides what runs and what arms share."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import commandline
import pytest

from hyperscale import methods, results
from hyperscale.engines import registry
from hyperscale.engines.base import Chain, Engine
from hyperscale.engines.provider import EngineProvider
from hyperscale.errors import ConfigError
from hyperscale.executors.executor import EngineResources
from hyperscale.kv.trace import KVTrace, dense_peak, dense_reads
from hyperscale.methods.arm import Arm
from hyperscale.run.config import load, resolve
from hyperscale.run.engines.cache import EngineCache
from hyperscale.run.placement import Placement

TOKENS = 3
EVENTS: list[tuple[str, str]] = []
"""What happened to toy engines and their weights, in order."""


class ToyEngine(Engine):
    """Answers every request with the same tokens, at the cost of a full cache."""

    name = "toy"

    def __init__(self, spec):
        self.spec = spec
        EVENTS.append(("start", spec.method.name))

    def generate(self, requests, sampling, watch=None):
        for request in requests:
            prompt = len(request.prompt_ids)
            lengths = sorted({cut for cut in request.cuts if cut < TOKENS} | {TOKENS})
            cuts = len(lengths)
            trace = KVTrace(
                lengths=tuple(lengths),
                kv_reads=tuple(float(dense_reads(prompt, n)) for n in lengths),
                peak_kv=tuple(float(dense_peak(prompt, n)) for n in lengths),
                chars=tuple(range(1, cuts + 1)),
                logprobs=(0.0,) * cuts,
                inserted=(0,) * cuts,
            )
            text = "</think> \\boxed{7}"
            yield Chain(request.problem, request.chain, prompt, (1, 2, 3), text, "stop", 0.0, trace, 0.5)

    def close(self):
        EVENTS.append(("close", self.spec.method.name))


class ToyProvider(EngineProvider):
    """Runs vanilla and window, on the CPU, and shares nothing."""

    name = "toy"
    steering = False
    devices = ("cpu",)
    batches = False

    def explain_method(self, method):
        return None if method in ("vanilla", "window") else f"{method} does not run in the toy engine"

    def versions(self):
        return super().versions() | {"toy": "7.1"}

    def build(self, spec, weights):
        assert weights is None
        return ToyEngine(spec)


class SharingToyProvider(ToyProvider):
    """Engines of one checkpoint share what is loaded for it."""

    shared_weights = "toys"

    def load_weights(self, spec):
        EVENTS.append(("load", spec.checkpoint))
        return spec.checkpoint

    def build(self, spec, weights):
        assert weights == spec.checkpoint
        return ToyEngine(spec)


@pytest.fixture(autouse=True)
def _toy_engines(monkeypatch):
    monkeypatch.setitem(registry.PROVIDERS, "toy", f"{__name__}:ToyProvider")
    monkeypatch.setitem(registry.PROVIDERS, "sharing-toy", f"{__name__}:SharingToyProvider")
    EVENTS.clear()


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


RUN = ("run", "--model", "mini", "--task", "mini_aime", "--limit", 2, "--length", 64, "--budget", "all")


def test_a_run_with_a_new_engine(call, tmp_path):
    code, _, err = call(*RUN, "--method", "vanilla", "--engine", "toy", "--out", tmp_path / "run")
    assert code == 0, err
    assert EVENTS == [("start", "vanilla"), ("close", "vanilla")]
    (run,) = results.read(tmp_path / "run")
    assert run.samples
    assert {(sample.engine, sample.tokens) for sample in run.samples} == {("toy", TOKENS)}
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["config"]["engine"] == "toy"
    assert info["versions"]["toy"] == "7.1"
    assert {"torch", "transformers", "numpy"} <= set(info["versions"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"methods": ["vanilla", "tova"]}, "tova does not run in the toy engine"),
        ({"extend": 1}, "--extend and --force-answer steer chains token by token, which the toy engine cannot"),
        ({"force_answer": 8}, "steer chains token by token"),
        ({"kv_dtype": "int8"}, "the toy engine keeps its cache as auto, not as int8: leave --engine toy or --kv-dtype"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_anything_is_loaded(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve.resolve_config(load.make_config({"engine": "toy", **settings}))
    assert EVENTS == []


def test_devices_are_refused_when_they_are_known():
    provider = registry.get("toy")
    provider.check_methods([methods.create("vanilla", cr=1)], "cpu")
    with pytest.raises(ConfigError, match="the toy engine runs on cpu, not on cuda: pass --device cpu"):
        provider.check_methods([methods.create("vanilla", cr=1)], "cuda:0")


def test_a_press_runs_where_its_engine_stands_in_and_nowhere_else():
    press = "kvpress:DecodingPress:KnormPress"
    assert registry.choose("torch", press) is registry.get("kvpress")
    assert registry.choose("torch", "dms") is registry.get("torch")
    groups = registry.assign("torch", ["vanilla", press, "dms"])
    assert groups == {registry.get("torch"): ["vanilla", "dms"], registry.get("kvpress"): [press]}
    assert registry.choose("vllm", press) is registry.get("vllm")
    assert "vanilla, dms, dmc, window, random" in registry.get("vllm").explain_method(press)
    assert "runs in the kvpress engine" in EngineProvider.explain_method(registry.get("toy"), press)


def test_engines_that_stand_in_are_not_chosen_by_name():
    assert registry.available() == ["torch", "vllm", "toy", "sharing-toy"]
    with pytest.raises(ConfigError, match="unknown engine 'sglang': choose one of torch, vllm, toy, sharing-toy"):
        registry.get("sglang")


def test_providers_import_nothing_heavy():
    """They are imported for every command that knows the settings of a run."""
    code = (
        "import sys; from hyperscale.engines import registry; "
        "providers = [registry.get(name) for name in registry.PROVIDERS]; "
        "print(sorted({'torch', 'transformers', 'numpy', 'kvpress', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run_of(engine, paths):
    """As much of a prepared run as the cache of engines looks at."""
    arms = {Arm(name, cr, True): path for (name, cr), path in paths.items()}
    return SimpleNamespace(
        config=load.make_config({"engine": engine}).model_copy(update={"device": "cpu", "dtype": "float32"}),
        checkpoints={arm: SimpleNamespace(path=path) for arm, path in arms.items()},
        methods={arm: methods.create(arm.method, cr=arm.CR) for arm in arms},
        max_sequence_tokens=100,
        placement=Placement("local", 1, EngineResources()),
    )


def test_arms_of_one_checkpoint_share_weights_where_the_engine_says_so():
    run = run_of("sharing-toy", {("vanilla", 1.0): "a", ("window", 2.0): "a", ("window", 4.0): "b"})
    first, second, third = run.methods
    engines = EngineCache()
    assert engines.engine(run, first) is engines.engine(run, first)
    for arm in (second, third):
        assert engines.engine(run, arm).spec.method is run.methods[arm]
    engines.close()
    engines.close()
    assert [
        *(("load", "a"), ("start", "vanilla"), ("close", "vanilla"), ("start", "window"), ("close", "window")),
        *(("load", "b"), ("start", "window"), ("close", "window")),
    ] == EVENTS


def test_an_engine_that_shares_nothing_starts_with_every_arm():
    run = run_of("toy", {("vanilla", 1.0): "a", ("window", 2.0): "a"})
    engines = EngineCache()
    built = [engines.engine(run, arm) for arm in run.methods]
    assert built[0] is not built[1]
    assert built[1].spec.max_tokens == 100
    assert replace(built[0].spec, method=None) == replace(built[1].spec, method=None)
    assert [kind for kind, _ in EVENTS] == ["start", "close", "start"]
