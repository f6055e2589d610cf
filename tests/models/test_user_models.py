"""Models that a user has named: what is added is found, from anywhere, and mistakes name the file."""

import json

import architectures
import pytest

from hyperscale import models
from hyperscale.errors import ModelError
from hyperscale.models.user_models import add_user_model, models_file


@pytest.fixture
def retrofit(tmp_path, monkeypatch):
    """A folder as `hyperscale retrofit` leaves it, and an empty configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    architectures.write(tmp_path / "made" / "dms8", "qwen2", gates=True)
    record = {"model": "qwen-r1-1.5b", "base": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"}
    (tmp_path / "made" / "training.json").write_text(json.dumps(record))
    return tmp_path / "made"


def test_a_named_retrofit_is_found_from_anywhere(retrofit, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "--model my-qwen is" in add_user_model(retrofit.relative_to(tmp_path), "my-qwen")
    monkeypatch.chdir("/")
    model = models.find("my-qwen")
    assert (model.name, model.base) == ("my-qwen", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert model.dms == {8.0: str(retrofit / "dms8")}
    assert model.tasks == models.find("qwen-r1-1.5b").tasks  # the original's defaults
    assert models.resolve("my-qwen", "dms", 8).path == str(retrofit / "dms8")
    assert "yours" in models.available()["my-qwen"]
    assert not models.is_built_in("my-qwen")
    # A ratio that is trained later is there without another line.
    architectures.write(retrofit / "dms16", "qwen2", gates=True)
    assert list(models.find("my-qwen").dms) == [8.0, 16.0]


def test_the_users_own_lines_stay(retrofit):
    models_file().parent.mkdir(parents=True)
    models_file().write_text(f"# mine\nother: {{folder: {retrofit}, note: a try}}")
    add_user_model(retrofit, "my.qwen")
    add_user_model(retrofit, "my.qwen")  # again is no mistake
    lines = models_file().read_text().splitlines()
    assert (lines[0], len(lines)) == ("# mine", 3)
    assert models.available()["other"].startswith("a try; yours, ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mini", "mini is a model that this package knows already"),
        ("a/b", "'a/b' is no name for a model"),
        ("taken", "taken is .* already: choose another name"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused(retrofit, name, text):
    add_user_model(retrofit / "dms8", "taken")
    before = models_file().read_text()
    with pytest.raises(ModelError, match=text):
        add_user_model(retrofit, name)
    assert models_file().read_text() == before


def test_mistakes_in_the_file_name_it_and_known_models_still_run(retrofit, tmp_path):
    models_file().parent.mkdir(parents=True)
    for contents, text in (
        ("mine: {dir: x}", r"models\.yaml, line 1: model 'mine'"),
        ("mini: {folder: x}", "knows a model of that name"),
        ("mine: {folder: /nowhere/at/all}", "that folder is not there"),
        ("[", r"models\.yaml"),
    ):
        models_file().write_text(contents)
        with pytest.raises(ModelError, match=text):
            models.find("mine")
        assert models.find("mini").base
    # What is left where the last entry was removed, and a file that no line can be added to.
    models_file().write_text("# mine\n\n")
    assert models.find("mini").base
    add_user_model(retrofit, "made")
    assert models.find("made").name == "made"
    models_file().write_text(before := f"{{other: {{folder: {retrofit}}}}}")
    with pytest.raises(ModelError, match=r'no line can be added to such a file: write "made": .* into it'):
        add_user_model(retrofit, "made")
    assert models_file().read_text() == before
    models_file().write_text("")
    with pytest.raises(ModelError, match="not a checkpoint"):
        add_user_model(tmp_path, "mine")
    with pytest.raises(ModelError, match="no folder"):
        add_user_model(tmp_path / "nothing", "mine")
