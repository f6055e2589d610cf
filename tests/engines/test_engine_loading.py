"""Loading checkpoints: gates come back as they were saved, and every unusable folder has one clear line."""

import json

import pytest
import tiny
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import ModelError


def save(folder, model):
    model.save_pretrained(folder)
    vocabulary = {chr(33 + i): i for i in range(60)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="!"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="!").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_plain_checkpoint(tmp_path, family):
    model = tiny.model(family)
    loaded, tokenizer = load_model(save(tmp_path, model), device="cpu", dtype=torch.float32)
    assert len(tokenizer) in (60, 61)  # Qwen2's tokenizer class adds a token of its own
    assert not loaded.training
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("separate", "per", "tensors"), [(True, "head", 4), (True, "layer", 4), (False, "head", 0), (False, "layer", 0)]
)
def test_gates_come_back(tmp_path, separate, per, tensors):
    model = tiny.with_gates(tiny.model(), window=8, separate=separate, per=per)
    loaded, tokenizer = load_model(save(tmp_path, model), dtype="float32")
    wanted = {name: tensor for name, tensor in model.state_dict().items() if ".dms_" in name}
    assert len(wanted) == tensors
    for name, tensor in wanted.items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    method = methods.create("dms", cr=8)
    request = [Request("p", 0, tuple(range(30)), 40)]
    made = [
        next(TorchEngine(m, tokenizer, method).generate(request, Sampling(temperature=0))).token_ids
        for m in (model, loaded)
    ]
    assert made[0] == made[1]


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_gates(tmp_path):
    folder = save(tmp_path, tiny.model())
    edit(folder, dms_window_size=16, dms_separate_alpha=True)
    with pytest.raises(ModelError, match=r"lacks tensors.*dms_proj_alpha"):
        load_model(folder)


def test_missing_tensors(tmp_path):
    folder = save(tmp_path, tiny.model(layers=1))
    edit(folder, num_hidden_layers=2, layer_types=["full_attention"] * 2, max_window_layers=2)
    with pytest.raises(ModelError, match="lacks tensors"):
        load_model(folder)


def test_unsupported_family(tmp_path):
    folder = save(tmp_path, tiny.model())
    edit(folder, model_type="gpt2")
    with pytest.raises(ModelError, match=r"'gpt2' are not supported: .*learned positions"):
        load_model(folder)


def test_sliding_window(tmp_path):
    folder = save(tmp_path, tiny.model())
    edit(folder, layer_types=["full_attention", "sliding_attention"], use_sliding_window=True, sliding_window=16)
    with pytest.raises(ModelError, match="sliding-window"):
        load_model(folder)


def test_broken_and_missing_folders(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"no checkpoint at nothing$"):
        load_model("nothing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(tmp_path)
    folder = save(tmp_path / "broken", tiny.model())
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="no safetensors file") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is missing or unreadable"):
        load_model(folder)


def test_unknown_dtype_and_device(tmp_path):
    folder = save(tmp_path, tiny.model())
    with pytest.raises(ModelError, match="dtype"):
        load_model(folder, dtype="float31")
    with pytest.raises(ModelError, match="device"):
        load_model(folder, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="CUDA"):
            load_model(folder, device="cuda")
