"""Which engine a run gets that names none, and that a folder keeps the one it has."""

import json
import re
from pathlib import Path

import pytest
import torch
from commandline import caller

from hyperscale import methods
from hyperscale.engines import registry
from hyperscale.engines.vllm import versions
from hyperscale.engines.vllm.harness import provider
from hyperscale.errors import ConfigError, EngineError, ModelError
from hyperscale.methods import registry as registry_of_methods
from hyperscale.run.config import load, resolve
from hyperscale.run.config.engine_choice import with_engine

RUN = ("run", "--model", "mini", "--task", "mini_aime", "--limit", 1, "--length", 32, "--budget", "all")


def chosen(device="cuda", names=("vanilla", "window"), folder=None, paths=(), **settings):
    """What a run on a device gets; nothing is loaded."""
    settings = {"methods": list(names), "crs": [4], "dtype": "bfloat16", **settings}
    config = resolve.resolve_config(load.make_config(settings)).model_copy(update={"device": device})
    arms = {arm: methods.create(arm.method, cr=arm.CR) for arm in config.arms}
    return with_engine(config, arms, paths, folder)


@pytest.fixture
def vllm(monkeypatch):
    """A vLLM for CUDA, as far as the choice looks at it."""
    monkeypatch.setattr(versions, "installed", lambda: versions.KNOWN[-1])
    monkeypatch.setattr(versions, "is_for_cpu", lambda: False)


def checkpoint(folder, **values):
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "num_attention_heads": 4, **values}))
    return [str(folder)]


@pytest.mark.usefixtures("vllm")
def test_vllm_on_cuda_where_it_runs_all_of_it(tmp_path):
    config = chosen(paths=checkpoint(tmp_path, head_dim=64))
    assert config.engine == "vllm"
    assert config.engine_choice == "vllm: it is installed and runs every method and setting of this run"
    assert chosen(device="cuda:1").engine == "vllm"


@pytest.mark.usefixtures("vllm")
def test_torch_for_a_family_that_vllm_has_no_classes_for(tmp_path):
    paths = checkpoint(tmp_path, head_dim=64, model_type="mistral")
    config = chosen(paths=paths)
    assert config.engine == "torch"
    assert "models of type 'mistral' do not run in vLLM" in config.engine_choice
    with pytest.raises(ModelError, match="leave --engine vllm out"):
        chosen(paths=paths, engine="vllm")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"device": "cpu"}, "on a CPU vLLM is no faster, and an installation of its own"),
        (
            {"names": ("vanilla", "kvpress:DecodingPress:KnormPress")},
            "kvpress:DecodingPress:KnormPress does not run in",
        ),
        ({"kv_dtype": "int4"}, "--kv-dtype"),
    ],
)
def test_torch_else(settings, reason):
    config = chosen(**settings)
    assert config.engine == "torch"
    assert config.engine_choice.startswith("torch: ")
    assert reason in config.engine_choice
    assert "--engine" not in config.engine_choice  # advice for those who named one


@pytest.mark.usefixtures("vllm")
def test_whatever_vllm_refuses_by_name_torch_runs():
    """Of every method and setting the provider itself is asked: none is chosen for vLLM that it then refuses."""
    vllm_provider, found = registry.get("vllm"), set()
    for name in registry_of_methods.available():
        refusal = vllm_provider.explain_method(name)
        engine = chosen(names=(name,)).engine
        assert (engine == "torch") == (refusal is not None), name
        found.add(engine)
    assert "vllm" in found
    for settings in ({"extend": 1}, {"force_answer": 8}):
        assert (chosen(**settings).engine == "vllm") == vllm_provider.steering


@pytest.mark.usefixtures("vllm")
def test_a_model_whose_heads_the_kernels_do_not_take(tmp_path):
    paths = checkpoint(tmp_path, hidden_size=320)
    config = chosen(paths=paths)
    assert config.engine == "torch"
    assert f"those of {tmp_path} have 80" in config.engine_choice
    assert chosen(names=("vanilla",), paths=paths).engine == "vllm"  # vLLM's own kernels do
    with pytest.raises(ModelError, match=r"a power of two from 16 to 256 on CUDA, and those of .* have 80"):
        chosen(paths=paths, engine="vllm")


@pytest.mark.parametrize(
    ("version", "for_cpu", "reason"),
    [
        (None, False, "torch: vLLM is not installed"),
        ("0.29.1", False, "torch: vLLM 0.29.1 is installed, and the hyperscale plugin knows"),
        (versions.KNOWN[0], True, "torch: vLLM is installed here for the CPU alone"),
    ],
)
def test_torch_where_vllm_is_not_here_or_another(monkeypatch, version, for_cpu, reason):
    monkeypatch.setattr(versions, "installed", lambda: version)
    monkeypatch.setattr(versions, "is_for_cpu", lambda: for_cpu)
    config = chosen()
    assert config.engine == "torch"
    assert config.engine_choice.startswith(reason)
    with pytest.raises((ConfigError, EngineError)):  # an engine that was named is never replaced
        chosen(engine="vllm")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("capability", "free", "kv_dtype", "reason"),
    [
        ((9, 0), 0.95, "fp8", None),
        ((8, 0), 0.95, "auto", None),
        ((8, 0), 0.95, "fp8", "compute capability 8.9, and this one has 8.0"),
        ((7, 5), 0.95, "auto", "compute capability 8.0, and this one has 7.5"),
        ((9, 0), 0.5, "auto", "40.0 of 80.0 GiB of the GPU are in use, and vLLM would take 90% of it (--gpu-memory)"),
    ],
)
def test_torch_on_a_gpu_that_vllm_would_not_start_on(monkeypatch, capability, free, kv_dtype, reason):
    total = 80 << 30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (int(free * total), total))
    config = chosen(names=("window",), kv_dtype=kv_dtype)
    assert config.engine == ("torch" if reason else "vllm")
    assert (reason or "vllm: it is installed and runs") in config.engine_choice


@pytest.mark.usefixtures("vllm")
def test_what_torch_does_not_have_goes_to_vllm_even_on_a_gpu_in_use(monkeypatch):
    monkeypatch.setattr(provider, "installed_cache_types", lambda: ("fp8_e4m3",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (40 << 30, 80 << 30))
    assert chosen(names=("vanilla",)).engine == "torch"
    config = chosen(names=("vanilla",), kv_dtype="fp8_e4m3")
    assert config.engine == "vllm"
    assert config.engine_choice.startswith("vllm: the torch engine keeps its cache as auto, ")


def test_a_cache_of_vllm_without_vllm_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(versions, "installed", lambda: None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        chosen(names=("vanilla",), kv_dtype="fp8_e4m3")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("stored", "engine"), [({}, "torch"), ({"engine": "torch"}, "torch"), ({"engine": "vllm"}, "vllm")]
)
def test_a_folder_keeps_its_engine(tmp_path, stored, engine):
    (tmp_path / "run.json").write_text(json.dumps({"schema": 2, "config": stored}))
    config = chosen(folder=tmp_path)
    assert (config.engine, config.engine_choice) == (engine, f"{engine}: this folder's")
    assert chosen(device="cpu", folder=tmp_path).engine == engine
    assert chosen(folder=tmp_path / "new").engine == "vllm"


def test_a_folder_of_vllm_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "installed", lambda: None)
    (tmp_path / "run.json").write_text(json.dumps({"schema": 2, "config": {"engine": "vllm"}}))
    with pytest.raises(EngineError, match="vLLM is not installed"):
        chosen(folder=tmp_path)


def test_runs_with_torch_are_the_runs_that_they_were():
    """Neither the folder's name nor what is compared in it depends on how torch came to be chosen."""
    auto, named = load.make_config({"engine": "auto"}), load.make_config({"engine": "torch"})
    assert auto.folder_name() == named.folder_name() == load.make_config({}).folder_name()
    by_default = chosen(device="cpu")
    by_name = chosen(device="cpu", engine="torch")
    assert by_default.compared() == by_name.compared()
    assert by_default.compared()["engine"] == "torch"
    assert by_default.engine_choice != by_name.engine_choice == "torch (set for this run)"


NOBODYS = {
    "vLLM's on the CPU": (
        {"device": "cpu", "gpu_memory": 0.9},
        "--gpu-memory 0.9 is for the vllm engine on a GPU, and",
    ),
    "torch's on the CPU": (
        {"device": "cpu", "cuda_graphs": False},
        "--no-cuda-graphs is for the torch engine on a GPU",
    ),
    "vLLM's on the CPU with vLLM": (
        {"device": "cpu", "engine": "vllm", "compilation": "none"},
        "this run is on the CPU: leave it out, or pass --device cuda",
    ),
    "vLLM's in torch": (
        {"engine": "torch", "compilation": "full"},
        "--compilation full is for the vllm engine, and this run is on torch (set for this run): leave it out, or pass "
        "--engine vllm",
    ),
    "vLLM's where torch is chosen": (
        {"kv_dtype": "int4", "gpu_memory": 0.5},
        "--gpu-memory 0.5 is for the vllm engine, and this run is on torch (--kv-dtype int4 is the torch engine's): "
        "leave it out",
    ),
    "torch's where vLLM is chosen": (
        {"cuda_graphs": True},
        "--cuda-graphs is for the torch engine, and this run is on vllm (it is installed and runs every method and "
        "setting of this run): leave it out, or pass --engine torch",
    ),
}


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("case", NOBODYS)
def test_a_setting_that_nothing_reads_is_refused_where_it_is_named(case):
    settings, message = NOBODYS[case]
    with pytest.raises(ConfigError, match=re.escape(message)):
        chosen(**settings)
    # What every machine has by default is not; nor is what leaves the choice.
    unset = {name: None for name in settings if name not in ("device", "engine", "kv_dtype")}
    assert not chosen(**{**settings, **unset, "compilation": "auto"}).named_gpu_settings


@pytest.mark.usefixtures("vllm")
def test_a_setting_that_the_engine_reads_is_taken():
    config = chosen(gpu_memory=0.5, compilation="graphs")
    assert (config.engine, config.gpu_memory, config.compilation) == ("vllm", 0.5, "graphs")
    config = chosen(engine="torch", cuda_graphs=False)
    assert (config.gpu_memory, config.cuda_graphs) == (0.9, False)
    # One of several methods is enough: the others run in an engine that stands in.
    press = "kvpress:DecodingPress:KnormPress"
    assert chosen(engine="torch", names=("vanilla", press), cuda_graphs=False).engine == "torch"


def test_a_file_and_the_command_refuse_what_nothing_reads(monkeypatch, capsys, tmp_path):
    call = caller(monkeypatch, capsys, tmp_path)
    (tmp_path / "run.yaml").write_text("gpu-memory: 0.5\n")
    for command in (("--gpu-memory", "0.5"), ("--config", tmp_path / "run.yaml")):
        for dry in ((), ("--dry-run",)):
            code, _, err = call(*RUN, "--device", "cpu", "--out", tmp_path / "run", *command, *dry)
            assert code == 2
            assert "--gpu-memory 0.5 is for the vllm engine on a GPU, and this run is on the CPU" in err
    assert not (tmp_path / "run").exists()


def test_the_plan_says_which_and_why(monkeypatch, capsys, tmp_path):
    call = caller(monkeypatch, capsys, tmp_path)
    for command in ((), ("--dry-run",)):
        code, out, err = call(*RUN, "--method", "vanilla", "--out", tmp_path / "run", "--device", "cpu", *command)
        assert code == 0, err
        reason = "torch: this folder's" if command else "torch: on a CPU vLLM is no faster"
        assert f"Engine: {reason}" in out
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["engine"].startswith("torch: on a CPU")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["config"]["engine"] == "torch"
    assert "engine_choice" not in info["config"]
    assert Path(tmp_path / "run" / "samples.jsonl").read_text()
