"""Settings of sampling reach the engine, the folder's description and its name."""

import json
import re
import shutil

import checkpoints
import commandline
import pytest
from safetensors.torch import load_file, save_file
from stored_chains import stored_chains

from hyperscale.run.config import load


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(4,))


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def command(weights, out, *more):
    fixed = ("--task", "mini_aime", "--limit", "2", "--grid", "mini", "--budget", "0.2x", "--predict", "closed")
    return ("run", "--model", weights, *fixed, "--out", out, *more)


def texts(folder):
    return {key: sample.text for key, sample in stored_chains(folder).items()}


def test_they_shape_what_is_drawn(weights, call, tmp_path):
    runs = {
        "drawn": (),
        "greedy": ("--temperature", "0"),
        "one token": ("--top-k", "1"),
        "the best": ("--min-p", "1", "--top-p", "1"),
        "penalised": ("--top-k", "1", "--repetition-penalty", "1.8"),
    }
    found = {}
    for name, options in runs.items():
        code, _, err = call(*command(weights, name, *options))
        assert (code, err) == (0, "")
        found[name] = texts(tmp_path / name)
    assert found["greedy"] == found["one token"] == found["the best"]
    assert found["drawn"] != found["greedy"] != found["penalised"]
    info = json.loads((tmp_path / "penalised" / "run.json").read_text())
    assert (info["config"]["top_k"], info["config"]["repetition_penalty"]) == (1, 1.8)
    assert info["sampling_sources"]["top_k"] == "set for this run"
    code, _, err = call(*command(weights, "penalised", "--top-k", "2", "--repetition-penalty", "1.8"))
    assert code == 2
    assert "top_k was 1, now 2" in err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--top-k", "-1", "--top-k must be at least 0, got -1"),
        ("--min-p", "1.5", "--min-p must be at most 1, got 1.5"),
        ("--min-p", "nan", "--min-p must be"),
        ("--repetition-penalty", "0", "--repetition-penalty must be more than 0, got 0"),
        ("--repetition-penalty", "inf", "--repetition-penalty must be at most 100"),
    ],
)
def test_values_without_a_meaning_are_refused(weights, call, option, value, message):
    code, _, err = call(*command(weights, "none", option, value))
    assert code == 2
    assert message in err


def test_float16_is_a_type_of_its_own_and_no_batch_changes_it(weights, call, tmp_path):
    for name, batch_size in (("one", "1"), ("many", "7")):
        code, out, err = call(*command(weights, name, "--dtype", "float16", "--batch-size", batch_size))
        assert (code, err) == (0, "")
        assert "may depend on --batch-size" not in out
    one, many = (
        {
            key: (sample.text, sample.whole.logprob, sample.dtype)
            for key, sample in stored_chains(tmp_path / name).items()
        }
        for name in ("one", "many")
    )
    assert one == many
    assert {dtype for *_, dtype in one.values()} == {"float16"}
    code, out, err = call(*command(weights, "brain", "--dtype", "bfloat16", "--limit", "1"))
    assert (code, err) == (0, "")
    assert "note: bfloat16 on the CPU: a chain may depend on --batch-size" in out
    code, out, _ = call(*command(weights, "plan", "--dtype", "float16", "--dry-run", "--gpu", "h100"))
    assert code == 0
    assert "Peak memory in GiB, float16" in out
    assert "At best on H100, float16" in out


@pytest.mark.parametrize("method", ["vanilla", "kvpress:DecodingPress:KeyDiffPress"])
def test_numbers_out_of_range_are_an_error_and_no_text(weights, call, tmp_path, method):
    """In float16 an activation beyond 65,504 is infinite, and what follows is no number."""
    folder = shutil.copytree(weights, tmp_path / "huge")
    file = folder / "base" / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.endswith(("up_proj.weight", "down_proj.weight")):
            tensors[name].mul_(3000)
    save_file(tensors, file, {"format": "pt"})
    code, _, err = call(*command(folder, "out", "--dtype", "float16", "--method", method, "--cr", "4"))
    assert code == 2
    assert re.search(r"the model's output for mini_aime/\S+ is not a number after \d+ tokens", err)
    assert "--dtype bfloat16 or float32" in " ".join(err.split())


def test_folders_of_other_settings_have_other_names():
    changes = ({}, {"top_k": 20}, {"top_k": 0}, {"min_p": 0.1}, {"repetition_penalty": 1.1})
    names = [load.make_config(change).folder_name() for change in changes]
    assert len(set(names)) == len(names)
    assert names[0] == "mini-vanilla-8x"
