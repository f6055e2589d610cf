"""Settings of sampling reach the engine, the folder's description and its name."""

import json

import checkpoints
import commandline
import pytest
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


def test_folders_of_other_settings_have_other_names():
    changes = ({}, {"top_k": 20}, {"top_k": 0}, {"min_p": 0.1}, {"repetition_penalty": 1.1})
    names = [load.make_config(change).folder_name() for change in changes]
    assert len(set(names)) == len(names)
    assert names[0] == "mini-vanilla-8x"
