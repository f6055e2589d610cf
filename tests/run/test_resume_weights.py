"""A folder goes on with the weights that it was begun with, and with no others, wherever they differ."""

import json
import shutil

import checkpoints
import commandline
import dms_folders
import pytest
import torch
from safetensors.torch import load_file, save_file

from hyperscale import results

TASK = ("--task", "mini_aime", "--limit", 2, "--budget", "all", "--grid", "one", "--length", 32, "--out", "out")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=()) / "base"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def change_a_layer(folder, *, as_torch_file=False):
    """Another middle layer, of the same size, in the same file; the ends of the file stay what they were."""
    file = folder / ("pytorch_model.bin" if as_torch_file else "model.safetensors")
    tensors = torch.load(file) if as_torch_file else load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"] += 0.01
    torch.save(tensors, file) if as_torch_file else save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("as_torch_file", [False, True])
def test_other_weights_in_the_same_folder(run, weights, tmp_path, as_torch_file):
    model = shutil.copytree(weights, tmp_path / "model")
    if as_torch_file:
        torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
        (model / "model.safetensors").unlink()
    assert run("run", "--model", "model", *TASK)[0] == 0
    assert run("run", "--model", "model", *TASK)[0] == 0
    change_a_layer(model, as_torch_file=as_torch_file)
    commandline.fails(run("run", "--model", "model", *TASK), "another configuration", "weights.")


def test_a_branch_of_the_hub_that_moved(run, weights, tmp_path, monkeypatch):
    hub, other = tmp_path / "hub", shutil.copytree(weights, tmp_path / "other")
    change_a_layer(other)
    dms_folders.use_hub(monkeypatch, hub)
    dms_folders.publish(hub, "someone/model", weights, commit="1" * 40)
    command = ("run", "--model", "someone/model", *TASK)
    assert run(*command)[0] == 0
    (stored,) = results.read(tmp_path / "out")
    assert set(stored.info["weights"].values()) == {"someone/model@" + "1" * 40}
    dms_folders.publish(hub, "someone/model", other, commit="2" * 40)
    commandline.fails(run(*command), "another configuration", "1" * 40, "2" * 40)
    (hub / "models--someone--model" / "refs" / "main").write_text("1" * 40)
    assert run(*command)[0] == 0


def test_a_folder_of_an_earlier_version_goes_on_and_says_so(run, weights, tmp_path):
    model = shutil.copytree(weights, tmp_path / "model")
    command = ("run", "--model", "model", *TASK)
    assert run(*command)[0] == 0
    path = tmp_path / "out" / results.manifest.RUN_FILE
    info = json.loads(path.read_text())
    identity = info.pop("weights")
    path.write_text(json.dumps(info))
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert "did not look at all of the weights" in " ".join(out.split())
    assert json.loads(path.read_text()) == info | {"weights": identity}
    _, out, _ = run(*command)
    assert "did not look at all" not in out
    change_a_layer(model)
    commandline.fails(run(*command), "weights.")
