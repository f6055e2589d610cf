"""The identity of weights sees a change of any file that decides what a model generates, at any place of it."""

import json
import shutil

import architectures
import pytest
import torch
from safetensors.torch import load_file, save_file

from hyperscale.models import weights_identity
from hyperscale.models.weights_identity import identify_weights


@pytest.fixture
def folder(tmp_path):
    return architectures.write(tmp_path / "model", "qwen3")


def as_torch_file(folder, **tensors):
    torch.save(load_file(folder / "model.safetensors") | tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_it_is_of_the_contents_alone(folder, tmp_path):
    before = identify_weights(str(folder))
    assert before == identify_weights(str(shutil.copytree(folder, tmp_path / "copy")))
    (folder / "README.md").write_text("words")
    (folder / "training_args.bin").write_bytes(b"of the training")
    assert identify_weights(str(folder)) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "generation_config.json", "config.json"])
def test_every_small_file_counts(folder, name):
    before = identify_weights(str(folder))
    with (folder / name).open("a") as file:
        file.write(" ")
    assert identify_weights(str(folder)) != before


@pytest.mark.parametrize("name", ["merges.txt", "tokenizer.model", "vocab.txt", "model-00001-of-00002.safetensors"])
def test_a_file_more_counts(folder, name):
    before = identify_weights(str(folder))
    (folder / name).write_bytes(b"x")
    assert identify_weights(str(folder)) != before


def test_a_trainer_s_log_in_the_folder_above_counts_where_it_decides(folder, tmp_path):
    """As FastDMS's trainer leaves it; logs of something else do not."""
    final = folder.rename(tmp_path / "final")
    log = tmp_path / "training_log.json"
    seen = [identify_weights(str(final))]
    for contents in ({"loss": [1.0]}, {"config": {"window_size": 4, "alpha_scale": 100, "alpha_offset": 5}}):
        log.write_text(json.dumps(contents))
        seen.append(identify_weights(str(final)))
    log.write_text(log.read_text().replace("4", "40"))
    seen.append(identify_weights(str(final)))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("whole", [weights_identity._WHOLE, 0])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_every_tensor_counts(folder, monkeypatch, kind, whole):
    """Whether a file is small or, as here the limit is zero, large."""
    monkeypatch.setattr(weights_identity, "_WHOLE", whole)
    tensors = load_file(folder / "model.safetensors")
    if kind == "bin":
        as_torch_file(folder)
    seen = {identify_weights(str(folder))}
    for name in tensors:
        changed = tensors | {name: tensors[name] + 1e-3}
        if kind == "bin":
            torch.save(changed, folder / "pytorch_model.bin")
        else:
            save_file(changed, folder / "model.safetensors", {"format": "pt"})
        seen.add(identify_weights(str(folder)))
    assert len(seen) == len(tensors) + 1


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_one_middle_layer_of_a_large_file_counts_and_is_cheap(tmp_path, monkeypatch, kind):
    """60 MB, more than is read in full here, of which samples and headers are read."""
    monkeypatch.setattr(weights_identity, "_WHOLE", 1 << 20)
    tensors = {f"model.layers.{i}.weight": torch.full((1000, 1500), float(i)) for i in range(10)}
    file = tmp_path / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    identities = []
    for change in (0.0, 0.5):
        tensors["model.layers.5.weight"] += change
        save_file(tensors, file) if kind == "safetensors" else torch.save(tensors, file)
        identities.append(identify_weights(str(tmp_path)))
    assert identities[0] != identities[1]
    with file.open("rb") as data:
        blocks = list(weights_identity._sampled(data, file, file.stat().st_size))
    assert 0 < sum(map(len, blocks)) < 1 << 20


def test_a_file_of_another_format_is_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_identity, "_WHOLE", 0)
    file = tmp_path / "model.gguf"
    contents = bytearray(weights_identity._EVENLY * weights_identity._BLOCK * 2)
    file.write_bytes(contents)
    before = identify_weights(str(tmp_path))
    middle = len(contents) // 2
    contents[middle : middle + 4 * weights_identity._BLOCK] = b"\1" * (4 * weights_identity._BLOCK)
    file.write_bytes(contents)
    assert identify_weights(str(tmp_path)) != before
