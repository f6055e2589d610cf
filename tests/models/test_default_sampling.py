"""How a model samples where a run does not say, and where that is from."""

import json

import checkpoints
import commandline
import pytest

from hyperscale import models
from hyperscale.errors import ModelError
from hyperscale.models.default_sampling import NEUTRAL
from hyperscale.models.model import Model
from hyperscale.results import manifest
from hyperscale.run.config import load, resolve
from hyperscale.utils import hub

STATED, LEFT_OUT = "generation_config.json", "left out by generation_config.json"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(4,))


@pytest.fixture
def state(weights):
    """Writes what the base's own file states, and takes it back after the test."""
    file = weights / "base" / "generation_config.json"
    before = file.read_bytes() if file.exists() else None
    yield lambda text: file.write_text(text if isinstance(text, str) else json.dumps(text))
    file.unlink(missing_ok=True)
    if before is not None:
        file.write_bytes(before)


def resolved(weights, **values):
    return resolve.resolve_config(load.make_config({"model": str(weights), "tasks": ["mini_aime"], **values}))


def shape(config):
    return {name: getattr(config, name) for name in NEUTRAL}


def test_the_checkpoints_own_file_is_the_default(weights, state):
    qwen = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    state({**qwen, "do_sample": True, "eos_token_id": [1, 2], "max_new_tokens": 5})
    found = resolved(weights)
    assert shape(found) == {**qwen, "min_p": 0.0}
    assert found.sampling_sources == {**dict.fromkeys(qwen, STATED), "min_p": LEFT_OUT}
    found = resolved(weights, temperature=0.3, top_k=0)
    assert shape(found) == {**qwen, "temperature": 0.3, "top_k": 0, "min_p": 0.0}
    assert found.sampling_sources["temperature"] == found.sampling_sources["top_k"] == "set for this run"
    assert found.sampling_sources["top_p"] == STATED


@pytest.mark.parametrize("text", ["{}", '{"eos_token_id": 3}', '{"do_sample": true, "temperature": null}'])
def test_a_file_that_states_none_of_it_leaves_hyperscales_default(weights, state, text):
    state(text)
    found = resolved(weights)
    assert shape(found) == {**NEUTRAL, "temperature": 0.6, "top_p": 0.95}
    assert set(found.sampling_sources.values()) == {"hyperscale's default"}


def test_what_a_file_leaves_out_is_neutral(weights, state):
    state({"top_k": -1, "temperature": 0.4})
    found = resolved(weights)
    assert shape(found) == {**NEUTRAL, "temperature": 0.4}
    assert found.sampling_sources["top_k"] == STATED
    assert found.sampling_sources["top_p"] == LEFT_OUT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read .*generation_config.json"),
        ("[" * 100_000, "cannot read .*generation_config.json"),
        ("[1]", "generation_config.json: must be a mapping"),
        ('{"temperature": "hot"}', "generation_config.json: temperature must be a number, got 'hot': mend the file"),
        ('{"temperature": true}', "temperature must be a number, got True"),
        ('{"temperature": "0.7"}', "temperature must be a number, got '0.7'"),
        (
            '{"eos_token_id": "3"}',
            "json: eos_token_id must be a whole number or a list of such, got '3': mend the file",
        ),
        ('{"eos_token_id": [3, "x"]}', r"json: eos_token_id must be a whole number or a list of such, got \[3, 'x'\]"),
        ('{"eos_token_id": true}', "eos_token_id must be a whole number or a list of such, got True"),
        ('{"eos_token_id": 5.0}', "eos_token_id must be a whole number or a list of such, got 5.0"),
        ('{"temperature": -1}', "temperature must be at least 0"),
        ('{"temperature": NaN}', "temperature must be at least 0|temperature must be a finite number"),
        ('{"top_p": 1.5}', "top_p must be at most 1"),
        ('{"top_p": 0}', "top_p must be more than 0"),
        ('{"top_k": 0.5}', "top_k must be a whole number"),
        ('{"min_p": 2}', "min_p must be at most 1"),
        ('{"repetition_penalty": 0}', "repetition_penalty must be more than 0"),
    ],
)
def test_a_broken_file_is_a_line_that_names_it(weights, state, text, message):
    state(text)
    with pytest.raises(ModelError, match=message) as error:
        resolved(weights)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"presence_penalty": 1.5, "top_k": 20}, ["presence_penalty = 1.5"]),
        ({"typical_p": 0.9}, ["typical_p = 0.9"]),
        ({"no_repeat_ngram_size": 3, "num_beams": 4}, ["num_beams = 4", "no_repeat_ngram_size = 3"]),
        ({"suppress_tokens": [5], "bad_words_ids": [[7]]}, ["bad_words_ids = [[7]]", "suppress_tokens = [5]"]),
        ({"sequence_bias": {"[5]": 1.0}}, ["sequence_bias"]),
        ({"stop_strings": ["</answer>"]}, ['stop_strings = ["</answer>"]']),
        ({"typical_p": 1.0, "num_beams": 1, "no_repeat_ngram_size": 0, "suppress_tokens": None, "min_length": 0}, []),
        ({"max_new_tokens": 2048, "do_sample": True, "use_cache": False, "temperature": 0.7}, []),
    ],
)
def test_what_a_file_asks_for_and_no_engine_applies_is_told(weights, state, stated, told):
    state(stated)
    notes = resolved(weights).notes
    assert len(notes) == bool(told)
    assert all(text in notes[0] for text in told)


def test_models_that_are_listed_keep_their_values(weights, state):
    state({"temperature": 0.1})
    found = resolved("mini")
    assert (found.temperature, found.top_p) == (0.8, 1.0)
    assert set(found.sampling_sources.values()) == {"models.yaml"}
    # A retrofit alone has the defaults of the model that it was made of, if that one is listed.
    folder = weights.parent / "retrofit"
    (weights / "dms4").rename(folder.mkdir() or folder / "dms4")
    record = folder / "training.json"
    record.write_text(json.dumps({"model": "qwen3-8b", "base": str(weights / "base")}))
    assert models.find_default_sampling(models.find(str(folder))).sources["top_p"] == "models.yaml"
    record.write_text(json.dumps({"model": "somebody/else", "base": str(weights / "base")}))
    assert models.find_default_sampling(models.find(str(folder))).values["temperature"] == 0.1
    (folder / "dms4").rename(weights / "dms4")


def test_the_file_of_a_hub_repository(tmp_path, monkeypatch):
    """From the cache where it is there; without a network it is no error that it is not."""
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.available_file("owner/name", STATED) is None
    (snapshot / STATED).write_text('{"temperature": 0.9}')
    found = models.find_default_sampling(Model("owner/name", "owner/name"))
    assert (found.values["temperature"], found.values["top_p"]) == (0.9, 1.0)


def test_a_plan_says_where_each_value_is_from(weights, state, monkeypatch, capsys, tmp_path):
    call = commandline.caller(monkeypatch, capsys, tmp_path)
    command = ("run", "--model", weights, "--task", "mini_aime", "--limit", "2", "--grid", "mini", "--dry-run")
    state({"temperature": 0.33, "top_k": 5})
    code, out, _ = call(*command, "--min-p", "0.02", "--repetition-penalty", "1")
    assert code == 0
    assert (
        "Sampling: temperature 0.33, top_k 5 (generation_config.json); top_p 1 (left out by generation_config.json); "
        "min_p 0.02, repetition_penalty 1 (set for this run)" in out
    )
    code, out, _ = call(*command, "--json")
    planned = next(event for event in map(json.loads, out.splitlines()) if event["event"] == "planned")
    assert planned["sampling"]["temperature"] == {"value": 0.33, "from": STATED}
    assert planned["sampling"]["min_p"] == {"value": 0, "from": LEFT_OUT}
    state("{}")
    code, out, _ = call(*command)
    assert "Sampling: temperature 0.6, top_p 0.95 (hyperscale's default)" in out


def test_a_folder_from_before_these_settings_is_still_the_same_run(weights):
    new = {"config": resolved(weights).compared()}
    assert "sampling_sources" not in new["config"]
    old = {"config": {name: value for name, value in new["config"].items() if name not in ("top_k", "min_p")}}
    del old["config"]["repetition_penalty"]
    assert manifest.changes(old, new) == []
    for name, value in (("top_k", 3), ("min_p", 0.1), ("repetition_penalty", 1.1)):
        assert len(manifest.changes(old, {"config": resolved(weights, **{name: value}).compared()})) == 1
