"""Whatever is wrong with a model's files, a user reads one line that names the file and says what to do."""

import json
import shutil

import architectures
import commandline
import dms_folders
import pytest

OPTIONS = ("--task", "mini_aime", "--limit", 1, "--length", 16, "--grid", "one", "--out", "out")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("checkpoint") / "llama", "llama")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


def rewrite(name, text):
    return lambda folder: (folder / name).write_text(text)


CODE = json.dumps({"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}})


def edit_header(**keys):
    """Change what a file of weights says of its first tensor; keys given as ... are taken out."""

    def change(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        entry = header[next(name for name in header if name != "__metadata__")]
        entry |= keys
        for key in [key for key, value in entry.items() if value is ...]:
            del entry[key]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return change


# What is done to the files, what the message says, and whether a dry run, which needs no weights, sees it as well.
BROKEN = {
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        ("the tokenizer of", "has none", "tokenizer.json"),
        True,
    ),
    "broken tokenizer": (rewrite("tokenizer.json", "{"), ("tokenizer.json is no JSON",), True),
    "listed tokenizer": (rewrite("tokenizer.json", "[]"), ("tokenizer.json is not a mapping",), True),
    "broken tokenizer_config": (rewrite("tokenizer_config.json", "{"), ("tokenizer_config.json is no JSON",), True),
    "listed tokenizer_config": (rewrite("tokenizer_config.json", "[]"), ("tokenizer_config.json is not",), True),
    "tokenizer of code": (rewrite("tokenizer_config.json", CODE), ("auto_map", "never run"), True),
    "broken config": (rewrite("config.json", "{"), ("config.json is missing or unreadable",), True),
    "listed config": (rewrite("config.json", "[]"), ("is not a model configuration",), True),
    "deep config": (rewrite("config.json", "[" * 100_000), ("config.json is missing or unreadable",), True),
    "empty config": (rewrite("config.json", "{}"), ("models of type None",), True),
    "no config": (lambda f: (f / "config.json").unlink(), ("is not a checkpoint", "no config.json"), True),
    "pointer for config": (rewrite("config.json", POINTER), ("config.json is a pointer", "git lfs pull"), True),
    "pointer for tokenizer": (rewrite("tokenizer.json", POINTER), ("tokenizer.json is a pointer",), True),
    "pointer for weights": (rewrite("model.safetensors", POINTER), ("model.safetensors is a pointer",), False),
    "tensor without a type": (
        edit_header(dtype=...),
        ("model.safetensors is no safetensors", "type and shape of"),
        False,
    ),
    "tensor without a shape": (edit_header(shape=None), ("is no safetensors file", "type and shape of"), False),
    "tensor of shape text": (edit_header(shape=["4"]), ("is no safetensors file", "type and shape of"), False),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ("has no weights",), False),
    "adapter": (rewrite("adapter_config.json", "{}"), ("adapter_config.json", "merge"), True),
    "adapter's weights": (rewrite("adapter_model.bin", ""), ("adapter_model.bin", "merge"), True),
    "adapter alone": (lambda f: (empty(f), (f / "adapter_config.json").touch()), ("and no model", "merge"), True),
    "gguf with config": (lambda f: (f / "model.safetensors").rename(f / "m.gguf"), ("m.gguf", "gguf_file="), True),
    "gguf alone": (lambda f: (empty(f), (f / "m.Q4_1.gguf").touch()), ("m.Q4_1.gguf", "GGUF", "gguf_file="), True),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("mode", [(), ("--dry-run",)], ids=["run", "dry"])
def test_a_broken_folder(run, folder, tmp_path, case, mode):
    change, texts, seen_by_dry_runs = BROKEN[case]
    change(folder)
    if mode and not seen_by_dry_runs:
        pytest.skip("a dry run needs no weights")
    commandline.fails(run("run", "--model", folder, *OPTIONS, *mode), *texts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head_dim", -1),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 0),
        ("num_key_value_heads", 3),
        ("hidden_size", -1),
        ("hidden_act", "x"),
        ("max_position_embeddings", 0),
        ("max_position_embeddings", -1),
        ("dmc_cr", "abc"),
        ("dmc_cr", [4]),
        ("dmc_cr", 0),
        ("vocab_size", -1),
        ("vocab_size", "many"),
        ("pad_token_id", 10**12),
        ("dtype", 1.5),
        ("model_type", []),
        ("num_hidden_layers", None),
        ("rope_parameters", 3),
        ("rms_norm_eps", "small"),
    ],
)
def test_a_configuration_that_makes_no_model(run, folder, tmp_path, key, value):
    dms_folders.edit(folder, **{key: value})
    commandline.fails(run("run", "--model", folder, *OPTIONS))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "text"),
    [({"max_position_embeddings": "4096"}, "expected int, got str"), ({"layer_types": ["full_attention"]}, "(1)")],
)
def test_what_transformers_finds_is_told_in_full(run, folder, keys, text):
    """Its first line only names the field, or its check."""
    dms_folders.edit(folder, **keys)
    commandline.fails(run("run", "--model", folder, *OPTIONS), text)


@pytest.mark.parametrize("name", ["model.gguf", "sub/model.gguf", "sub/MODEL.GGUF"])
def test_a_gguf_file_by_its_path(run, tmp_path, name):
    """``sub/model.gguf`` has the form of a hub id."""
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(b"GGUF")
    commandline.fails(run("run", "--model", name, *OPTIONS), name, "GGUF", "safetensors")


def test_another_file_by_its_path(run, folder):
    commandline.fails(run("run", "--model", folder / "model.safetensors", *OPTIONS), "is a file: pass the folder")


@pytest.mark.parametrize("mode", [(), ("--dry-run",)], ids=["run", "dry"])
def test_a_hub_id_that_is_not_here(run, monkeypatch, tmp_path, mode):
    """Nobody is sent to --dry-run, which needs the sizes of a model that is not listed."""
    dms_folders.use_hub(monkeypatch, tmp_path / "hub")
    result = run("run", "--model", "someone/model", *OPTIONS, *mode)
    commandline.fails(result, "someone/model", "hf download someone/model")
    assert "--dry-run" not in result[2]
    listed = run("run", "--model", "qwen-r1-7b", "--task", "mini_aime", "--length", 16, "--grid", "one", *mode)
    assert ("--dry-run plans without weights" in listed[2]) == (not mode)


@pytest.mark.parametrize("mode", [(), ("--dry-run",)], ids=["run", "dry"])
@pytest.mark.parametrize("name", ["someone/model-GGUF", "someone/model.gguf@main", "someone/gguf_model-gguf"])
def test_a_hub_id_of_gguf_files(run, monkeypatch, tmp_path, name, mode):
    """It has no config.json to download."""
    dms_folders.use_hub(monkeypatch, tmp_path / "hub")
    result = run("run", "--model", name, *OPTIONS, *mode)
    commandline.fails(result, "GGUF", "pass the hub id of the original model")


def test_an_adapter_in_a_repository_of_the_hub(run, folder, monkeypatch, tmp_path):
    (folder / "adapter_config.json").write_text("{}")
    dms_folders.use_hub(monkeypatch, tmp_path / "hub")
    dms_folders.publish(tmp_path / "hub", "someone/model", folder)
    commandline.fails(run("run", "--model", "someone/model", *OPTIONS), "someone/model", "adapter_config.json")


def test_tensors_without_a_place_in_a_repository_of_the_hub(run, folder, monkeypatch, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.bias"] = tensors["model.norm.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    dms_folders.use_hub(monkeypatch, tmp_path / "hub")
    dms_folders.publish(tmp_path / "hub", "someone/model", folder)
    commandline.fails(run("run", "--model", "someone/model", *OPTIONS), "no place for", "o_proj.bias")
