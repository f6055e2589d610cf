"""Names of devices, and the line about one that is not here."""

import os
import sys
from io import StringIO

import pytest
import torch

from hyperscale.engines.devices import check_device, device_index, device_kind
from hyperscale.engines.vllm.harness.start import _have_descriptor, _show_gpu, start_engine
from hyperscale.errors import EngineError, ModelError
from hyperscale.retrofit.job import _memory_of
from hyperscale.run import prepare
from hyperscale.run.config import load
from hyperscale.scoring.voting.reward_models import RewardModel


def test_parts_of_a_name():
    assert [device_kind(name) for name in ("cpu", "cuda", "cuda:12")] == ["cpu", "cuda", "cuda"]
    assert [device_index(name) for name in ("cpu", "cuda", "cuda:0", "cuda:12")] == [None, None, 0, 12]


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:", "cuda:-1", "mps", "meta", ""])
def test_names_that_are_none(name):
    with pytest.raises(ModelError, match=r"unknown device .*; use cpu, cuda or cuda:N"):
        check_device(name)


@pytest.fixture
def gpus(monkeypatch):
    """Lets torch see so many GPUs."""

    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


def test_a_gpu_that_is_not_here_is_one_line(gpus):
    gpus(0)
    check_device("cpu")
    for name in ("cuda", "cuda:0", "cuda:1"):
        with pytest.raises(ModelError, match=f"--device {name}: torch sees no CUDA device here; use --device cpu"):
            check_device(name)
    gpus(1)
    check_device("cuda")
    check_device("cuda:0")
    with pytest.raises(ModelError, match="there is no cuda:1: torch sees one CUDA device here, cuda:0"):
        check_device("cuda:1")
    gpus(3)
    check_device("cuda:2")
    with pytest.raises(ModelError, match="there is no cuda:3: torch sees 3 CUDA devices here, cuda:0 to cuda:2"):
        check_device("cuda:3")


def test_every_command_says_so(gpus, tmp_path):
    gpus(2)
    settings = load.make_config({"device": "cuda:7", "limit": 1})
    with pytest.raises(ModelError, match="there is no cuda:7"):
        prepare.prepare_run(settings, lambda stage: None)
    with pytest.raises(ModelError, match="there is no cuda:7"):
        _memory_of("cuda:7")
    with pytest.raises(ModelError, match="there is no cuda:7"):
        RewardModel(str(tmp_path), "cuda:7").score("a question", "an answer")


@pytest.mark.parametrize(
    ("before", "gpu", "seen"),
    [(None, 1, "1"), ("4,6", 1, "6"), ("4, 6", 1, "6"), ("GPU-a,GPU-b", 0, "GPU-a"), ("2,3", None, "2,3")],
)
def test_vllms_process_sees_one_gpu(monkeypatch, before, gpu, seen):
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with _show_gpu(gpu):
        assert os.environ.get(name) == seen
    assert os.environ.get(name) == before


def test_vllm_in_this_process_runs_on_the_first_gpu_alone():
    with pytest.raises(EngineError, match="vLLM runs on cuda:1 only in a process of its own"):
        start_engine({}, own_process=False, cpu=False, gpu=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_chain_on_any_gpu():
    from hyperscale import methods
    from hyperscale.engines.base import Request, Sampling
    from hyperscale.engines.loading import load_model
    from hyperscale.engines.torch.engine import TorchEngine
    from hyperscale.mini.model import WEIGHTS

    found = set()
    sampling = Sampling(temperature=0.8, repetition_penalty=1.1, top_k=20, min_p=0.01)
    for index in range(torch.cuda.device_count()):
        device = f"cuda:{index}"
        for name, cr in (("vanilla", 1), ("dms", 8), ("tova", 4)):
            model, words = load_model(WEIGHTS / ("dms8" if name == "dms" else "base"), device=device)
            engine = TorchEngine(model, words, methods.create(name, cr=cr), batch_size=4, device=device)
            chains = engine.generate([Request("p", n, (5, 6, 7), 64) for n in range(8)], sampling)
            found.add((name, tuple(sorted((chain.chain, chain.token_ids) for chain in chains))))
    assert len(found) == 3


@pytest.mark.parametrize("output", [StringIO(), None])
def test_vllm_finds_a_descriptor_to_mute_in_a_notebook(monkeypatch, output):
    monkeypatch.setattr(sys, "stdout", output)
    with _have_descriptor():
        os.fstat(sys.stdout.fileno())
    assert sys.stdout is output


def test_an_output_that_has_one_stays(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with _have_descriptor():
            sys.stdout.write("seen\n")
    assert (tmp_path / "out").read_text() == "seen\n"
