"""Whether all activations of a step are kept: chosen by memory, told, recorded, and as before when it goes on."""

import json

import architectures
import pytest
from safetensors.torch import load_file
from torch import equal

from hyperscale.errors import RetrofitError
from hyperscale.retrofit import choices, job, memory_estimate, trainer
from hyperscale.retrofit.reporting.records import TrainingRecord
from hyperscale.retrofit.settings import RetrofitSettings

TEXT = "The search goes on from here, and each step names what it found before it turns back. "
#: Long enough to reach its ratio, so that the gate check lets it pass.
QUICK = {"crs": (2.0,), "steps_per_unit": 24, "hard_steps": (4,), "window": 4, "rows": 2, "accumulate": 1}
QUICK |= {"gate_lr": 3.0, "lr": 1e-3}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny model and texts."""
    folder = tmp_path_factory.mktemp("sources")
    architectures.write(folder / "model", "qwen3")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": TEXT[i:]}) + "\n" for i in range(12)))
    return folder


def settings(sources, out, **changes):
    given = {"model": str(sources / "model"), "data": str(sources / "texts.jsonl"), "out": out, "length": 128}
    return RetrofitSettings.from_options({**given, **QUICK, **changes})


# --- the choice ---


@pytest.mark.parametrize(
    ("asked", "before", "device", "fits", "chosen", "reason"),
    [
        ("auto", None, "cuda", True, "kept", "as they fit"),
        ("auto", None, "cuda:1", False, "recomputed", "as all of them do not fit"),
        ("auto", None, "cpu", True, "recomputed", ""),
        ("auto", "recomputed", "cuda", True, "recomputed", "as this training began"),
        ("auto", "kept", "cuda", False, "kept", "as this training began"),
        ("kept", "recomputed", "cuda", False, "kept", ""),
        ("recomputed", "kept", "cuda", True, "recomputed", ""),
    ],
)
def test_what_is_asked_for_comes_first_then_what_was_begun_then_memory(asked, before, device, fits, chosen, reason):
    assert choices.choose_activations(asked, before, device, fits=fits) == (chosen, reason)


@pytest.fixture
def choose(sources, tmp_path, monkeypatch):
    """A function that gives the training that a command would begin on a GPU of so many bytes, and what it tells."""

    def choose(memory, **changes):
        begun, lines = [], []
        monkeypatch.setattr(job, "_memory_of", lambda _: ("a GPU", memory))
        monkeypatch.setattr(job, "attends_fused_on", lambda *_: True)
        monkeypatch.setattr(job, "train", lambda found, *_: begun.append(found))
        job.run_retrofit(settings(sources, tmp_path / "out", device="cuda", **changes), lines.append)
        (found,) = begun
        return found, lines

    return choose


def need(found):
    return found.estimate.weights + found.estimate.activations


def test_all_are_kept_where_their_estimate_fits(choose):
    large, lines = choose(1 << 40)
    assert large.activations == "kept"
    assert "activations: kept, as they fit" in lines
    assert f"training takes about {large.estimate}; a GPU has 1,024 GiB" in lines
    recomputed, _ = choose(1 << 40, activations="recomputed")
    assert need(recomputed) < need(large) == need(choose(1 << 40, activations="kept")[0])
    # The setting stays what the user gave, so that the same command goes on.
    assert large.settings.activations == "auto"
    # With more room to spare than recipes need.
    assert memory_estimate.USABLE_TO_KEEP < memory_estimate.USABLE
    least = int(need(large) / memory_estimate.USABLE_TO_KEEP) + 1
    assert choose(least)[0].activations == "kept"
    small, lines = choose(least - 2)
    assert (small.activations, small.estimate) == ("recomputed", recomputed.estimate)
    assert "activations: recomputed, as all of them do not fit" in lines


def test_a_better_recipe_is_worth_more_than_activations_that_are_kept(choose):
    paper, _ = choose(1 << 40, rows=1, recipe_name="paper", activations="recomputed")
    gates, _ = choose(1 << 40, rows=1, recipe_name="adapters", hard_steps=(0,))
    assert gates.activations == "kept"
    assert need(gates) < need(paper)  # it would fit as well, and in a faster step
    found, lines = choose(int(need(paper) / memory_estimate.USABLE) + 1, rows=1)
    assert (found.settings.recipe_name, found.activations) == ("paper", "recomputed")
    assert lines.index("recipe: paper") < lines.index("activations: recomputed, as all of them do not fit")


def test_what_is_asked_for_and_does_not_fit_is_refused_with_what_would(choose):
    large, _ = choose(1 << 40, recipe_name="paper")
    with pytest.raises(RetrofitError, match="pass --activations recomputed, fewer --rows or a smaller --length"):
        choose(need(large), recipe_name="paper", activations="kept")


# --- a training that goes on ---


class StopError(Exception):
    pass


@pytest.fixture
def train(sources, tmp_path, monkeypatch):
    """A function that trains on the CPU, until a step if one is given; it gives what was computed again, and lines."""
    whole = trainer.Retrofit

    def train(name, *, until=None, **changes):
        made, lines = [], []

        class Watched(whole):
            def __init__(self, *parts, **named):
                made.append(named["recompute"])
                super().__init__(*parts, **named)

            def _step(self, *parts, **named):
                if self.steps_done == until:
                    raise StopError
                super()._step(*parts, **named)

        monkeypatch.setattr(trainer, "Retrofit", Watched)
        asked = settings(sources, tmp_path / name, device="cpu", recipe_name="paper", save_minutes=0, **changes)
        try:
            job.run_retrofit(asked, lines.append)
        except StopError:
            assert until is not None
        (recompute,) = made
        return recompute, lines

    return train


def test_a_training_goes_on_as_it_began_and_its_record_says_how(train, tmp_path):
    assert train("whole")[0] is True
    assert TrainingRecord.read(tmp_path / "whole").activations == "recomputed"
    assert train("broken", until=4, activations="kept")[0] is False
    assert TrainingRecord.read(tmp_path / "broken").activations == "kept"
    recompute, lines = train("broken", until=6)  # the user passes nothing
    assert recompute is False
    assert "activations: kept, as this training began" in lines
    assert any(line.startswith("going on after 4 of 28 steps") for line in lines)
    assert train("broken")[0] is False
    record = TrainingRecord.read(tmp_path / "broken")
    assert (record.activations, record.finished) == ("kept", True)
    expected, found = (load_file(tmp_path / name / "dms2" / "model.safetensors") for name in ("whole", "broken"))
    assert all(equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("stored", [{}, {"activations": "recomputed"}], ids=["not told", "as a setting"])
def test_a_record_from_before_there_was_a_choice_goes_on(train, tmp_path, stored):
    train("old", until=4)
    file = tmp_path / "old" / "training.json"
    record = json.loads(file.read_text())
    assert record.pop("activations") == "recomputed"
    record["settings"] |= stored
    file.write_text(json.dumps(record))
    recompute, lines = train("old")
    assert recompute is True
    assert "activations: recomputed, as this training began" in lines
    record = TrainingRecord.read(tmp_path / "old")
    assert (record.activations, record.finished) == ("recomputed", True)


def test_a_new_choice_on_the_way_is_the_users(train, tmp_path):
    train("changed", until=4)
    assert train("changed", activations="kept")[0] is False
    assert TrainingRecord.read(tmp_path / "changed").activations == "kept"
