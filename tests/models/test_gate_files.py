"""What a checkpoint's files say of DMS: formats, keys of no sense, and who may run it, in a folder and by hub id."""

import json

import dms_folders
import pytest
import torch
from dms_folders import FASTDMS_KEYS, FASTDMS_METADATA, NVIDIA_KEYS, edit, publish, use_hub

from hyperscale import models
from hyperscale.engines.loading import load_model
from hyperscale.errors import ConfigError, ModelError
from hyperscale.methods.core.dms_config import GateConfig
from hyperscale.models.gate_files import gate_notes, read_gate_of

NVIDIA = GateConfig(window=5, cr=8, separate=False)
FASTDMS = GateConfig(window=5, cr=8, separate=False, decision_offset=0, zeroing="before_rope")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A checkpoint without gates, for tests that write other keys over it and need no weights."""
    folder = tmp_path_factory.mktemp("plain")
    dms_folders.write(folder)
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    for file in plain.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    config = (plain / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    return tmp_path


def metadata(folder, contents):
    text = contents if isinstance(contents, str) else json.dumps(contents)
    (folder / "dms_metadata.json").write_text(text, encoding="utf-8")


GATES = {
    "none": ({}, None, None),
    "keys that are null": ({"dms_window_size": None, "dms_cr": None}, None, None),
    "unknown keys alone": ({"dms_colour": 3}, None, None),
    "nvidia": (NVIDIA_KEYS, None, NVIDIA),
    "nvidia, window missing": (NVIDIA_KEYS | {"dms_window_size": ...}, None, GateConfig(512, cr=8, separate=False)),
    "nvidia, one key": ({"dms_separate_alpha": True}, None, GateConfig(512, cr=8)),
    "fastdms": (FASTDMS_KEYS, None, FASTDMS),
    "fastdms, one key": (
        {"dms_alpha_offset": 3},
        None,
        GateConfig(256, initial_offset=3.0, cr=8, separate=False, decision_offset=0, zeroing="before_rope"),
    ),
    "its target": (NVIDIA_KEYS | {"dms_target_cr": 8}, None, FASTDMS),
    "metadata": ({}, FASTDMS_METADATA, FASTDMS),
    "metadata before keys": (NVIDIA_KEYS | {"dms_window_size": 7}, FASTDMS_METADATA, FASTDMS),
    "metadata and keys": (NVIDIA_KEYS, {"window_size": 5}, FASTDMS),
    "metadata under names of keys": ({}, {f"dms_{k}": v for k, v in FASTDMS_METADATA.items()}, FASTDMS),
    "a projection": (NVIDIA_KEYS | {"dms_separate_alpha": True}, None, GateConfig(5, cr=8)),
    "a whole number as 5.0": (NVIDIA_KEYS | {"dms_window_size": 5.0, "dms_cr": 8.0}, None, NVIDIA),
    "no window at all": (NVIDIA_KEYS | {"dms_window_size": 0}, None, GateConfig(0, cr=8, separate=False)),
}


@pytest.mark.parametrize("case", GATES)
def test_formats(case, folder):
    keys, extra, gate = GATES[case]
    edit(folder, **keys)
    if extra is not None:
        metadata(folder, extra)
    assert read_gate_of(str(folder)) == gate
    assert models.find(str(folder)).dms == ({8: str(folder)} if gate else {})


NONSENSE = {
    "negative window": ({"dms_window_size": -1}, "dms_window_size .* is -1: it must be a whole number of at least 0"),
    "half a token": ({"dms_window_size": 2.5}, "dms_window_size .* is 2.5: it must be a whole number"),
    "window as text": ({"dms_window_size": "16"}, 'dms_window_size .* is "16": it must be a whole number'),
    "window as bool": ({"dms_window_size": True}, "dms_window_size .* is true: it must be a whole number"),
    "window as list": ({"dms_window_size": [16]}, r"dms_window_size .* is \[16\]: it must be a whole number"),
    "windows of layers": ({"dms_window_size": {"0": 16}}, "dms_window_size .* must be a whole number"),
    "window beyond any sequence": ({"dms_window_size": 10**30}, r"dms_window_size .* below 2\^31"),
    "infinite window": ({"dms_window_size": float("inf")}, "dms_window_size .* must be a whole number"),
    "no scale": ({"dms_alpha_scale": 0}, "dms_alpha_scale .* is 0: it must be a number other than 0"),
    "scale as text": ({"dms_alpha_scale": "100"}, 'dms_alpha_scale .* is "100": it must be a number'),
    "scale not a number": ({"dms_alpha_scale": float("nan")}, "dms_alpha_scale .* must be a number"),
    "no temperature": ({"dms_tau": 0}, "dms_tau .* is 0: it must be a number above 0"),
    "cold": ({"dms_tau": -0.1}, "dms_tau .* is -0.1: it must be a number above 0"),
    "offset": ({"dms_initial_alpha_offset": [5]}, "dms_initial_alpha_offset .* must be a number"),
    "other offset": ({"dms_alpha_offset": False}, "dms_alpha_offset .* is false: it must be a number"),
    "ratio": ({"dms_cr": 0.5}, "dms_cr .* is 0.5: it must be a number of at least 1"),
    "ratio as text": ({"dms_cr": "8x"}, 'dms_cr .* is "8x": it must be a number of at least 1'),
    "separate as text": ({"dms_separate_alpha": "false"}, 'dms_separate_alpha .* is "false": it must be true or false'),
    "separate as number": ({"dms_separate_alpha": 0}, "dms_separate_alpha .* is 0: it must be true or false"),
    "disabled as number": ({"dms_disable_eviction": 1}, "dms_disable_eviction .* is 1: it must be true or false"),
    "verdicts": ({"dms_alpha_per": "token"}, 'dms_alpha_per .* is "token": it must be "head" or "layer"'),
    "verdicts by layer": ({"dms_alpha_per": ["head", "layer"]}, "dms_alpha_per .* must be"),
    "decision": ({"dms_decision_offset": -1}, "dms_decision_offset .* is -1: it must be a whole number"),
    "decision too late": (
        {"dms_decision_offset": 8, "dms_window_size": 6},
        "dms_decision_offset .* is 8: it must be at most 7, the window and 1",
    ),
    "decision as bool": ({"dms_decision_offset": True}, "dms_decision_offset .* is true: it must be a whole number"),
    "zeroing": ({"dms_neuron_zeroing": "twice"}, 'dms_neuron_zeroing .* "twice": it must be "before_and_after_rope"'),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_keys_of_no_sense_are_refused_by_name_file_and_what_is_allowed(case, folder):
    keys, message = NONSENSE[case]
    edit(folder, **NVIDIA_KEYS | keys)
    with pytest.raises(ModelError, match=message) as error:
        models.resolve(str(folder), "dms", 8)
    assert str(folder / "config.json") in str(error.value)
    with pytest.raises(ModelError, match=message):  # nor does another method run it
        models.resolve(str(folder), "vanilla", 1)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


FILES = {
    "window": ({"window_size": -1}, "window_size in .* is -1: it must be a whole number of at least 0"),
    "scale": (FASTDMS_METADATA | {"alpha_scale": 0}, "alpha_scale in .* is 0: it must be a number other than 0"),
    "offset": ({"alpha_offset": "5"}, 'alpha_offset in .* is "5": it must be a number'),
    "ratio": ({"target_cr": 0}, "target_cr in .* is 0: it must be a number of at least 1"),
    "a list": ("[1]", "dms_metadata.json, which says how DMS decides, is not a mapping"),
    "nested": ("[" * 100_000, "cannot read .*dms_metadata.json"),
    "cut off": ('{"window_size": 5', "cannot read .*dms_metadata.json, which says how DMS decides"),
}


@pytest.mark.parametrize("case", FILES)
def test_metadata_of_no_sense_are_refused(case, folder):
    contents, message = FILES[case]
    metadata(folder, contents)
    with pytest.raises(ModelError, match=message) as error:
        models.find(str(folder))
    assert str(folder / "dms_metadata.json") in str(error.value)


def test_a_log_of_other_training_is_none_of_ours(folder):
    (folder / "training_log.json").write_text('{"config": {"lr": 1e-5}, "log": []}', encoding="utf-8")
    assert read_gate_of(str(folder)) is None


def test_what_users_are_told(folder):
    edit(folder, **NVIDIA_KEYS)
    assert gate_notes([str(folder), str(folder)]) == []
    edit(folder, dms_thresholds=[1], dms_colour="red", dms_disable_eviction=True, dms_window_size=...)
    unknown, window, disabled = gate_notes([str(folder)])
    assert "mean nothing here and change nothing: dms_colour, dms_thresholds" in unknown
    assert "no dms_window_size: the window is 512" in window
    assert "(512 with dms.format=nvidia and 256 with dms.format=fastdms)" in window
    assert "dms_disable_eviction: dms evicts nothing" in disabled
    assert all(str(folder / "config.json") in note for note in (unknown, window, disabled))


BORROWING = {
    "key missing": (NVIDIA_KEYS, None),
    "key false": (NVIDIA_KEYS | {"dms_separate_alpha": False}, None),
    "fastdms": (FASTDMS_KEYS, None),
    "metadata alone": ({}, FASTDMS_METADATA),
    "switched off": (NVIDIA_KEYS | {"dms_disable_eviction": True}, None),
}


@pytest.mark.parametrize("by_hub_id", [False, True], ids=["folder", "hub"])
@pytest.mark.parametrize("case", BORROWING)
def test_other_methods_do_not_run_what_borrows_neurons(case, by_hub_id, folder, tmp_path_factory, monkeypatch):
    keys, extra = BORROWING[case]
    edit(folder, **keys)
    if extra is not None:
        metadata(folder, extra)
    name = str(folder)
    if by_hub_id:
        hub = tmp_path_factory.mktemp("hub")
        use_hub(monkeypatch, hub)
        publish(hub, name := "someone/borrows", folder)
    assert models.resolve(name, "dms", 8).path == name
    for method in ("vanilla", "window", "tova", "quest"):
        stated = "false" if case == "key false" else "missing"
        message = rf"\(dms_separate_alpha is {stated}\), and {method} would take them for attention"
        with pytest.raises(ModelError, match=message):
            models.resolve(name, method, 8)


def test_other_methods_run_what_has_projections(folder):
    edit(folder, **NVIDIA_KEYS | {"dms_separate_alpha": True})
    assert models.resolve(str(folder), "vanilla", 1).path == str(folder)


def test_projections_need_their_key(tmp_path):
    import architectures

    architectures.write(tmp_path, "llama", gates=True)
    edit(tmp_path, dms_separate_alpha=...)
    with pytest.raises(ModelError, match=r"dms_proj_alpha.*need dms_separate_alpha = true in config.json"):
        load_model(tmp_path)


def test_by_hub_id_and_revision_as_from_a_folder(tmp_path, monkeypatch):
    old, new, hub = (tmp_path / name for name in ("old", "new", "hub"))
    dms_folders.write(old, keys=NVIDIA_KEYS | {"dms_cr": 4}, seed=1)
    dms_folders.write(new, metadata=FASTDMS_METADATA, seed=2)
    use_hub(monkeypatch, hub)
    publish(hub, "someone/dms", new, commit="1" * 40)
    publish(hub, "someone/dms", old, revision="v1", commit="2" * 40)
    for name, folder, cr in (
        ("someone/dms", new, 8),
        ("someone/dms@main", new, 8),
        ("someone/dms@v1", old, 4),
        (f"someone/dms@{'2' * 40}", old, 4),
    ):
        entry = models.find(name)
        assert (entry.base, entry.dms, entry.family) == (name, {cr: name}, "llama")
        checkpoint = models.resolve(name, "dms", cr)
        models.require(checkpoint.path, name)
        assert models.shape_of(name, name).layers == models.shape_of(str(folder), str(folder)).layers
        loaded, wanted = load_model(name)[0], load_model(folder)[0]
        assert GateConfig.from_hf(loaded.config) == GateConfig.from_hf(wanted.config) == read_gate_of(str(folder))
        for (key, tensor), (_, other) in zip(loaded.state_dict().items(), wanted.state_dict().items(), strict=True):
            assert torch.equal(tensor, other), key
        with pytest.raises(ModelError, match=rf"DMS checkpoints at CR {cr}, not 2: pass --cr {cr}"):
            models.resolve(name, "dms", 2)


def test_a_hub_id_that_cannot_be_had_says_so(tmp_path, monkeypatch):
    use_hub(monkeypatch, tmp_path)
    message = r"not on this machine .* `hf download someone/dms --revision v2 config.json`"
    with pytest.raises(ModelError, match=message):
        models.resolve("someone/dms@v2", "dms", 8)


@pytest.mark.parametrize("model", ["someone/dms@", "some one/dms@v1", "mini@v1", "/nowhere@v1"])
def test_revisions_of_what_has_none(model):
    with pytest.raises(ModelError, match="unknown model"):
        models.find(model)


# --- runs ---


def prepared(**settings):
    from hyperscale.run import prepare
    from hyperscale.run.config import load

    config = {"methods": ["dms"], "tasks": ["mini_aime"], "limit": 1, "lengths": [16], "budget": "all", **settings}
    return prepare.prepare_run(load.make_config(config), lambda stage: None)


def test_a_run_by_hub_id_and_revision(tmp_path, monkeypatch):
    folder, hub = tmp_path / "folder", tmp_path / "hub"
    dms_folders.write(folder, keys=FASTDMS_KEYS | {"dms_colour": 1})
    use_hub(monkeypatch, hub)
    publish(hub, "someone/dms", folder, revision="v1", commit="1" * 40)
    by_option = prepared(model="someone/dms", revision="v1")
    by_name = prepared(model="someone/dms@v1")
    assert by_option.config == by_name.config
    assert by_option.config.model == "someone/dms@v1"
    assert by_option.config.crs == (8,)
    assert {checkpoint.path for checkpoint in by_option.checkpoints.values()} == {"someone/dms@v1"}
    assert any("config.json of someone/dms@v1 has keys that mean nothing here" in note for note in by_option.notes)
    with pytest.raises(ModelError, match="would take them for attention"):
        prepared(model="someone/dms", revision="v1", methods=["vanilla"])
    with pytest.raises(ModelError, match="v2"):
        prepared(model="someone/dms", revision="v2")


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("mini", "v1", "--revision goes with a hub id owner/name, which 'mini' is not"),
        ("someone/dms@v1", "v2", "--revision v2 and --model someone/dms@v1 name two revisions"),
        ("someone/dms", "a b", "--revision must be a branch, a tag or a commit, not 'a b'"),
        ("someone/dms", "", "--revision must be a branch, a tag or a commit, not ''"),
    ],
)
def test_revisions_that_name_nothing(model, revision, message):
    with pytest.raises(ConfigError, match=message):
        models.add_revision(model, revision)
    assert models.add_revision(model, None) == model


def test_the_dry_run_refuses_and_tells_as_well(folder):
    from hyperscale.run import dry_run
    from hyperscale.run.config import load

    edit(folder, **NVIDIA_KEYS | {"dms_colour": 1})
    settings = {"model": str(folder), "methods": ["dms"], "tasks": ["mini_aime"], "lengths": [16], "budget": "all"}
    plan = dry_run.plan_dry_run(load.make_config(settings))
    assert any("mean nothing here and change nothing: dms_colour" in note for note in plan.notes)
    with pytest.raises(ModelError, match="would take them for attention"):
        dry_run.plan_dry_run(load.make_config(settings | {"methods": ["dms", "window"]}))
