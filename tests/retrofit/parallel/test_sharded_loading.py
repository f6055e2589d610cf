"""Checkpoints that processes read part by part: where tensors are, and what is not in the files."""

import json

import pytest
import tiny
import torch
from safetensors.torch import save_file

from hyperscale.engines.families.names import FAMILIES
from hyperscale.errors import ModelError
from hyperscale.retrofit.parallel.ranks import Ranks
from hyperscale.retrofit.parallel.sharded_loading import build_empty, fill_model, find_files, is_empty, restore_buffers


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_computed_is_computed_anew(family):
    model = tiny.model(family)
    empty = build_empty(model.config, torch.float32)
    assert is_empty(empty)
    assert not is_empty(model)
    empty.to_empty(device="cpu")
    restore_buffers(empty, torch.device("cpu"))
    wanted, found = dict(model.named_buffers()), dict(empty.named_buffers())
    assert wanted.keys() == found.keys()
    assert any("inv_freq" in name for name in wanted)
    for name, buffer in wanted.items():
        assert torch.equal(buffer, found[name]), name


def test_tensors_are_found_in_one_file_and_in_several(tmp_path):
    assert find_files(tmp_path) == {}
    first, second = {"a": torch.ones(2)}, {"b": torch.ones(3)}
    save_file(first, tmp_path / "model.safetensors")
    assert find_files(tmp_path) == {"a": tmp_path / "model.safetensors"}
    save_file(first, tmp_path / "model-1.safetensors")
    save_file(second, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert find_files(tmp_path) == {"a": tmp_path / "model-1.safetensors", "b": tmp_path / "model-2.safetensors"}


class _Shard(torch.nn.Parameter):
    """Rows of a tensor as FSDP2 deals them out: those of the second of three processes, of seven rows."""

    shape = torch.Size([7, 2])

    def to_local(self):
        return self.data


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = tiny.model().config
        self.register_parameter("weight", _Shard(torch.zeros(3, 2)))


def test_each_process_reads_its_rows(tmp_path):
    whole = torch.arange(14.0).view(7, 2)
    save_file({"weight": whole}, tmp_path / "model.safetensors")
    model = _Model()
    fill_model(model, tmp_path, Ranks(1, 3), torch.device("cpu"))
    assert torch.equal(model.weight.data, whole.chunk(3)[1])
    save_file({"other": whole}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="lacks tensors: weight"):
        fill_model(_Model(), tmp_path, Ranks(1, 3), torch.device("cpu"))
