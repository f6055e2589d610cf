"""The settings of a retrofit: what they accept, and what the trainer is told."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hyperscale.errors import RetrofitError
from hyperscale.methods.core.dmc_merge import MergeConfig
from hyperscale.methods.core.dms_gate import GateConfig
from hyperscale.retrofit.settings import Recipe, RetrofitSettings

REQUIRED = {"model": "m", "data": "d.jsonl", "out": "o"}


def settings(**changes):
    return RetrofitSettings.from_options({**REQUIRED, **changes})


def test_the_learning_rate_is_the_papers_for_the_models_size_unless_it_is_set():
    assert settings().recipe(1_500_000_000).lr == 1e-5
    assert settings().recipe(7_000_000_000).lr == 3e-5
    assert settings(lr=2e-4).recipe(7_000_000_000).lr == 2e-4


def test_the_recipe_has_the_settings_of_the_training():
    recipe = settings(crs=[2, 4], hard_steps=[5, 7], window=9, gate="borrowed", seed=3).recipe(1)
    assert (recipe.crs, recipe.hard_steps, recipe.window, recipe.seed) == ((2, 4), (5, 7), 9, 3)
    assert (recipe.method, recipe.reach, recipe.symmetric, recipe.groups) == ("dms", 1, False, 1)
    assert recipe.warmup == 5
    # Without a hard phase the noisy one warms up as long as with it; gates alone were measured without a warm-up.
    for hard_steps in ([0], [150], [0, 150]):
        assert settings(crs=[2, 4][: len(hard_steps)], hard_steps=hard_steps).recipe(1).warmup == 20
    assert settings(recipe_name="adapters").recipe(1).warmup == 1
    assert settings(recipe_name="adapters", hard_steps=[30], finish="soft").recipe(1).warmup == 20


def test_hard_steps_are_one_number_for_all_ratios_or_one_for_each():
    recipe = Recipe(crs=(2, 4), steps_per_unit=10, hard_steps=(5,))
    assert [recipe.hard_steps_at(cr) for cr in recipe.crs] == [5, 5]
    recipe = recipe.changed(hard_steps=(5, 6))
    assert [recipe.hard_steps_at(cr) for cr in recipe.crs] == [5, 6]
    assert recipe.total_steps == 30 + 5 + 6
    with pytest.raises(ValidationError, match="3 numbers of hard steps for 2 ratios"):
        recipe.changed(hard_steps=(1, 2, 3))


def test_prompts_are_a_path_in_one_form_or_the_models_own():
    """``self`` is the model; a folder of that name has a dot in front, as in ``settings.json``, and stays a folder."""
    for given, kept, source in (
        (None, None, None),
        ("self", "self", "self"),
        ("./self", "./self", Path("self")),
        (Path("self"), "./self", Path("self")),
        ("./asked.jsonl", "asked.jsonl", Path("asked.jsonl")),
        (Path("a/self"), "a/self", Path("a/self")),
    ):
        made = settings(data="self", prompts=given)
        assert (made.prompts, made.prompts_source) == (kept, source)
        assert made.changed(rows=2).prompts_source == source
    with pytest.raises(RetrofitError, match="--prompts must be text, got 5"):
        settings(prompts=5)


def test_only_borrowed_neurons_are_faded():
    separate = Recipe(crs=(2,), steps_per_unit=10, fade_steps=7)
    borrowed, dmc = separate.changed(gate="borrowed"), separate.changed(method="dmc")
    assert [recipe.steps_until(2) for recipe in (separate, borrowed, dmc)] == [10, 17, 17]
    assert separate.gates() == GateConfig(window=256, cr=2)
    assert borrowed.gates() == GateConfig(window=256, cr=2, separate=False)
    assert dmc.gates() == MergeConfig(alpha_scale=100, cr=2)
    assert [recipe.delay for recipe in (separate, borrowed, dmc)] == [256, 256, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crs": [float("inf")]}, "--cr must be a finite number, got inf"),
        ({"crs": []}, "--cr has too few entries"),
        ({"crs": [2, 2]}, "--cr must be in ascending order, each ratio once"),
        ({"gate_lr": float("nan")}, "--gate-lr must be"),
        ({"whole_chats": "perhaps"}, "--all-tokens must be true or false, got 'perhaps'"),
        ({"model": None}, "--model must be text"),
        ({"crs": [2, 4], "hard_steps": [1, 2, 3]}, "3 numbers of hard steps for 2 ratios$"),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_command_line(changes, message):
    with pytest.raises(RetrofitError, match="^" + message.replace("(", r"\(")) as error:
        settings(**changes)
    assert "\n" not in str(error.value)


def test_a_finish_has_steps():
    with pytest.raises(RetrofitError, match="--finish soft has no steps: pass --hard-steps 150"):
        settings(recipe_name="adapters", finish="soft")


def test_a_path_of_data_has_one_form():
    """In which a training that goes on compares it."""
    found = [settings(data=data).data for data in ("d/", "./d", "self", "./self", "hub:a/b", "hub:./a/")]
    assert found == ["d", "d", "self", "./self", "hub:a/b", "hub:./a/"]


@pytest.mark.parametrize(
    ("given", "unused"),
    [
        ({"recipe_name": "adapters", "lr": 1e-4, "own_tokens": 9}, ["--lr", "--own-tokens"]),
        ({"recipe_name": "paper", "lora_rank": 4, "lora_alpha": 1, "fade_steps": 9}, ["--lora-rank", "--lora-alpha"]),
        ({"recipe_name": "lora", "lora_rank": 4, "lr": 1e-4, "data": "self", "column": "text"}, ["--column"]),
        ({"recipe_name": "paper", "lr": 1e-4, "gate": "borrowed", "fade_steps": 9, "column": "text"}, []),
        ({"recipe_name": "adapters"}, []),
        ({"recipe_name": "lora", "data": "self", "own_tokens": 9, "own_top_p": 0.9, "own_temperature": 2}, []),
    ],
)
def test_options_that_change_nothing_are_told(given, unused):
    lines = settings(**given).list_unused()
    assert [line.split()[0] for line in lines if "--fade-steps" not in line] == unused
    assert any("--fade-steps" in line for line in lines) == ("fade_steps" in given and "gate" not in given)
    assert all("changes nothing here: it goes with --" in line for line in lines)
