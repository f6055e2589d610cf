"""Tensors that a model has no place for, lacks or has in another form are refused by name, in every kind of file."""

import json
import shutil

import architectures
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from hyperscale.engines.config_check import load_supported_config
from hyperscale.engines.loading import check_checkpoint, load_model
from hyperscale.errors import ModelError

FAMILIES = ("qwen2", "qwen3", "llama")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: architectures.write(folder / family, family) for family in FAMILIES}


@pytest.fixture
def checkpoint(written, tmp_path):
    """A function that copies a checkpoint of a family with other tensors and other keys of config.json."""

    def make(family="qwen3", change=lambda tensors: None, **keys):
        folder = shutil.copytree(written[family], tmp_path / "checkpoint", dirs_exist_ok=True)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | keys))
        return folder

    return make


def refuse(folder, *texts):
    """Loading and the check before it both refuse, in one line with these texts."""
    for load in (load_model, check_checkpoint):
        with pytest.raises(ModelError) as caught:
            load(str(folder))
        message = str(caught.value)
        assert "\n" not in message
        for text in texts:
            assert text in message


def test_checkpoints_as_transformers_writes_them_pass(written, checkpoint):
    for folder in written.values():
        check_checkpoint(str(folder))
    check_checkpoint(str(architectures.write(checkpoint() / "gates", "llama", gates=True)))


LAYER = "model.layers.1.self_attn"


@pytest.mark.parametrize(
    ("family", "name", "texts"),
    [
        ("llama", f"{LAYER}.q_proj.weight_scale", ("quantised",)),
        ("llama", f"{LAYER}.q_proj.bias", ("attention_bias",)),
        ("llama", "model.layers.0.mlp.up_proj.bias", ("mlp_bias",)),
        ("llama", f"{LAYER}.q_norm.weight", ()),
        ("qwen2", f"{LAYER}.q_norm.weight", ()),
        ("qwen2", f"{LAYER}.o_proj.bias", ()),
        ("qwen3", f"{LAYER}.o_proj.bias", ("attention_bias",)),
        ("qwen3", f"{LAYER}.sinks", ()),
        ("qwen3", f"{LAYER}.q_proj.lora_A.weight", ("adapter",)),
        ("qwen3", "model.layers.2.input_layernorm.weight", ("num_hidden_layers = 2",)),
        ("qwen3", f"{LAYER}.dms_proj_alpha.weight", ()),
        ("qwen3", "visual.patch_embed.weight", ()),
    ],
)
def test_a_tensor_without_a_place(checkpoint, family, name, texts):
    folder = checkpoint(family, lambda tensors: tensors.update({name: torch.ones(64)}))
    refuse(folder, "no place for", name, *texts)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "language_model."])
def test_names_with_a_prefix(checkpoint, prefix):
    def change(tensors):
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    refuse(checkpoint("llama", change), f"{prefix}lm_head.weight", "lacks lm_head.weight")


def test_fewer_layers_than_the_file_has(checkpoint):
    folder = checkpoint("llama", num_hidden_layers=1)
    refuse(folder, "model.layers.1.input_layernorm.weight", "num_hidden_layers = 1")


@pytest.mark.parametrize("name", [f"{LAYER}.k_norm.weight", "lm_head.weight", "model.embed_tokens.weight"])
def test_a_missing_tensor(checkpoint, name):
    refuse(checkpoint("qwen3", lambda tensors: tensors.pop(name)), "lacks tensors", name)


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        ({"num_key_value_heads": 4}, ("k_proj.weight", "(32, 64)", "(64, 64)")),
        ({"vocab_size": 300}, ("(259, 64)", "(300, 64)")),
        ({"intermediate_size": 80}, ("mlp.down_proj", "(64, 96)", "(64, 80)")),
    ],
)
def test_another_shape_names_tensor_and_both_shapes(checkpoint, keys, texts):
    refuse(checkpoint("llama", **keys), "config.json makes it", *texts)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
def test_codes_instead_of_numbers(checkpoint, dtype):
    def change(tensors):
        tensors[f"{LAYER}.v_proj.weight"] = tensors[f"{LAYER}.v_proj.weight"].to(dtype)

    refuse(checkpoint("llama", change), f"{LAYER}.v_proj.weight", "quantised")


def test_mixed_floating_point_types_load(checkpoint):
    def change(tensors):
        for index, name in enumerate(sorted(tensors)):
            tensors[name] = tensors[name].to((torch.float32, torch.bfloat16, torch.float16, torch.float64)[index % 4])

    model, _ = load_model(checkpoint("llama", change))
    assert model.dtype == torch.float32


def test_rotary_frequencies_of_old_versions_pass(checkpoint):
    folder = checkpoint("llama", lambda tensors: tensors.update({f"{LAYER}.rotary_emb.inv_freq": torch.ones(8)}))
    load_model(folder)


def test_a_tied_output_layer(checkpoint):
    tied = checkpoint("qwen3", lambda tensors: tensors.pop("lm_head.weight"), tie_word_embeddings=True)
    load_model(tied)

    def copy(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    load_model(checkpoint("qwen3", copy, tie_word_embeddings=True))
    refuse(checkpoint("qwen2", tie_word_embeddings=True), "tie_word_embeddings", "lm_head.weight")


def test_shards(written, tmp_path):
    model, _ = load_model(written["llama"])
    folder = shutil.copytree(written["llama"], tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    index = folder / "model.safetensors.index.json"
    loaded, _ = load_model(folder)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    shards = sorted(folder.glob("model-*.safetensors"))
    kept = shards[0].read_bytes()
    shards[0].write_bytes(kept[:-10])
    refuse(folder, shards[0].name, "bytes instead of")
    shards[0].unlink()
    refuse(folder, index.name, shards[0].name, "not there")
    shards[0].write_bytes(kept)
    for text in ("{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        refuse(folder, index.name)


def test_files_that_torch_wrote(written, tmp_path):
    folder = shutil.copytree(written["qwen3"], tmp_path / "bin")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, part in halves.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    loaded, _ = load_model(folder)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in tensors.items())
    first = folder / next(iter(halves))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    refuse(folder, first.name, "no file of tensors")
    first.unlink()
    refuse(folder, first.name, "not there")
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    torch.save(tensors | {f"{LAYER}.o_proj.bias": torch.ones(64)}, folder / "pytorch_model.bin")
    refuse(folder, "no place for", f"{LAYER}.o_proj.bias")
    torch.save([1, 2], folder / "pytorch_model.bin")
    refuse(folder, "no file of tensors")


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}x"])
def test_a_broken_file(checkpoint, content):
    folder = checkpoint()
    (folder / "model.safetensors").write_bytes(content)
    refuse(folder, "model.safetensors")


def test_a_file_that_was_cut_off(checkpoint):
    file = checkpoint() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refuse(file.parent, "model.safetensors", "bytes instead of")


def test_no_weights_at_all(checkpoint):
    folder = checkpoint()
    (folder / "model.safetensors").rename(folder / "consolidated.00.pth")
    refuse(folder, "has no weights", "consolidated.00.pth")


def test_weights_that_one_engine_would_read_and_another_not(checkpoint):
    folder = checkpoint()
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    refuse(folder, "consolidated.safetensors", "move it elsewhere")


def test_an_adapter_beside_the_weights(checkpoint):
    folder = checkpoint()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refuse(folder, "adapter_config.json", "merge")


def test_gates_in_files_that_torch_wrote(tmp_path):
    folder = architectures.write(tmp_path, "qwen3", gates=True)
    model, _ = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    again, _ = load_model(folder)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_the_inner_model_alone(tmp_path):
    """transformers puts ``model.`` in front of the names of a model that was saved without its output layer."""
    tiny_model = tiny.model("llama", vocab=len(architectures.tokenizer()))
    tiny_model.config.tie_word_embeddings = True
    tiny_model.model.save_pretrained(tmp_path)
    architectures.tokenizer().save_pretrained(tmp_path)
    assert "model.embed_tokens.weight" not in load_file(tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded.model.norm.weight, tiny_model.model.norm.weight)
    assert load_supported_config(str(tmp_path)).tie_word_embeddings


def test_a_file_of_torchs_old_format(written, tmp_path):
    folder = shutil.copytree(written["llama"], tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    loaded, _ = load_model(folder)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in tensors.items())


class Opens:
    """What a pickle must not do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_of_tensors_does_not_run(written, tmp_path, zipped):
    folder = shutil.copytree(written["llama"], tmp_path / "hostile")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(
        {**tensors, "x": Opens(str(tmp_path / "ran"))},
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    refuse(folder, "pytorch_model.bin", "no file of tensors")
    assert not (tmp_path / "ran").exists()


def test_an_index_that_names_another_shard_for_a_tensor(written, tmp_path):
    """The files say where a tensor is."""
    model, _ = load_model(written["llama"])
    folder = shutil.copytree(written["llama"], tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    files = sorted(set(index["weight_map"].values()))
    gone = [name for name, file in index["weight_map"].items() if file == files[0]]
    index["weight_map"] |= dict.fromkeys(gone, files[1])
    path.write_text(json.dumps(index))
    refuse(folder, files[0])
