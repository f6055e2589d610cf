"""models.yaml is checked: each error names the file, the line, the model and the key."""

import re

import pytest
import torch
from safetensors.torch import save_file

from hyperscale.errors import ModelError
from hyperscale.models.model_file import known_models, read_models
from hyperscale.models.shape import Shape, count_parameters

GOOD = """\
small:
  base: owner/small
  dms: {8: owner/small-dms8, 2: mini/weights/dms2}
  tasks: [aime24]
  shape: {layers: 2, kv_heads: 1, head_dim: 16}
"""


def test_an_entry_is_read(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text(GOOD)
    (model,) = read_models(file).values()
    assert (model.name, model.base, model.tasks, model.grid) == ("small", "owner/small", ("aime24",), "paper")
    assert model.shape == Shape(2, 1, 16)
    assert model.retrofits["dms"][8.0] == "owner/small-dms8"
    assert model.retrofits["dms"][2.0] == known_models()["mini"].retrofits["dms"][2.0]
    assert "dmc" not in model.retrofits


def test_marks_of_a_models_own(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text(GOOD + '  thinking: ["<plan>", "</plan>"]\n')
    (model,) = read_models(file).values()
    assert model.thinking == ("<plan>", "</plan>")


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        (3, "  dsm: {8: x/y}", "dsm is unknown: did you mean 'dms'?"),
        (3, "  dms: {fast: owner/small-dms8}", "must be a number"),
        (3, "  dms: owner/small-dms8", "dms must be a mapping"),
        (3, "  temperature: warm", "temperature must be a number"),
        (3, "  top_p: 0", "top_p must be more than 0"),
        (3, "  batch_size: 0", "batch_size must be at least 1"),
        (3, "  demonstrate: maybe", "demonstrate must be true or false"),
        (5, "  shape: {layers: 2, kv_heads: 1}", "shape.head_dim is missing"),
        (5, "  shape: {layers: 2, kv_heads: 1, head_dim: 16, width: 3}", "shape.width is unknown"),
        (3, "  thinking: <plan>", "thinking must be"),
        (3, "  thinking: [<plan>]", "thinking"),
        (3, "  thinking: ['', '']", "thinking"),
        (2, "  family: qwen3", "base is missing"),
    ],
)
def test_errors_say_where(tmp_path, line, changed, message):
    lines = GOOD.splitlines()
    lines[line - 1] = changed
    file = tmp_path / "models.yaml"
    file.write_text("\n".join(lines))
    place = 1 if message.endswith("base is missing") else line
    with pytest.raises(
        ModelError, match=f"{re.escape(str(file))}, line {place}: model 'small': .*{re.escape(message)}"
    ):
        read_models(file)


def test_a_file_that_is_no_mapping(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text("[a, b]")
    with pytest.raises(ModelError, match="is not a mapping: write models like"):
        read_models(file)


def test_weights_are_counted_from_the_headers(tmp_path):
    save_file({"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.tensor(1.0)}, tmp_path / "1.safetensors")
    save_file({"c": torch.zeros(5)}, tmp_path / "2.safetensors")
    assert count_parameters(tmp_path) == 3 * 4 + 1 + 5
    (tmp_path / "3.safetensors").write_bytes(b"no tensors")
    assert count_parameters(tmp_path) is None
    assert count_parameters(tmp_path / "nowhere") is None
