"""The recipe that trains gates and low-rank updates: the base teaches, and what is written is one plain model."""

import itertools

import pytest
import torch
from checkpoints import SMALL
from transformers import AutoModelForCausalLM

from hyperscale.errors import RetrofitError
from hyperscale.mini.model import build_model
from hyperscale.retrofit import choices, memory_estimate
from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.checkpoints import save_checkpoint
from hyperscale.retrofit.low_rank import updates
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.recipes import NAMES
from hyperscale.retrofit.settings import Recipe, RetrofitSettings
from hyperscale.retrofit.trainer import Retrofit

pytest.importorskip("peft")

LORA = Recipe(
    crs=(2.0, 3.0),
    steps_per_unit=30,
    hard_steps=(10,),
    window=4,
    accumulate=1,
    gate_lr=1e-2,
    lr=3e-3,
    train="lora",
    lora_rank=4,
)
GIVEN = {"model": "mini", "data": "text.jsonl", "out": "out"}


def batch(seed):
    ids = torch.randint(0, 64, (4, 64), generator=torch.Generator().manual_seed(seed))
    position = torch.arange(64).expand(4, 64).contiguous()
    kind = torch.zeros_like(ids)
    kind[:, -1] = -1
    return TrainingBatch(ids, position, torch.zeros_like(ids), kind, (kind >= 0).float())


def make(recipe, **more):
    model = build_model(0, **SMALL, initializer_range=0.06)
    for parameter in model.parameters():  # values that bfloat16 has, as those of a checkpoint are
        parameter.data = parameter.data.bfloat16().float()
    return Retrofit(model, recipe, report=lambda _: None, **more)


def teach(training):
    """Logits of the teacher."""
    one = batch(-1)
    inputs = {"input_ids": one.ids, "position_ids": one.position, "masks": training_masks(training, one)}
    with training.distillation.as_teacher():
        return training.distillation.teacher(**inputs, use_cache=False).logits


def training_masks(training, one):
    return PackingMasks.build(one.document, training.recipe.delay)


def test_updates_learn_the_base_stays_and_the_checkpoint_is_the_merged_model(tmp_path):
    training = make(LORA)
    assert training.distillation.teacher is training.gated.model
    before = {name: value.clone() for name, value in training.gated.model.state_dict().items()}
    taught = teach(training)
    trains = {name for name in before if "dms_proj_alpha." in name or ".lora_" in name}
    for made in training.run(map(batch, itertools.count())):
        after = made.model.state_dict()
        assert {name for name in before if not torch.equal(before[name], after[name])} == trains
        assert torch.equal(teach(training), taught)  # whatever was learned, the teacher is the base
        save_checkpoint(made.model, tmp_path / f"{made.cr:g}", **made.config.to_hf())
        assert made.model.state_dict().keys() == before.keys()  # and it trains on
    plain, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "3", output_loading_info=True)
    assert not loading["missing_keys"]
    assert {path.name for path in (tmp_path / "3").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    training.gated.mode = "off"
    one = batch(-1)
    inputs = {"input_ids": one.ids, "position_ids": one.position}
    with torch.no_grad():
        student = training.gated.forward(**inputs, masks=training_masks(training, one))
        found = plain.float()(**inputs).logits
    learned = (student - taught).abs().mean()
    assert learned > 0.01
    assert (found - student).abs().mean() < 0.2 * learned  # bfloat16's rounding of all weights


def test_the_hard_phase_trains_the_updates_alone():
    training = make(LORA.changed(crs=(2.0,), hard_steps=(4,)))
    states = {}

    def keep():
        if training.phase == "hard":
            states[training.phase_steps] = {k: v.clone() for k, v in training.distillation.trained_state().items()}

    training.after_step = keep
    list(training.run(map(batch, itertools.count())))
    gates = {name for name in states[1] if "dms_proj_alpha." in name}
    assert all(".lora_" in name for name in states[1].keys() - gates)  # what a state on the disk holds
    moved = {name for name in states[1] if not torch.equal(states[1][name], states[3][name])}
    assert moved == {name for name in states[1] if ".lora_" in name}
    assert len(moved) == 2 * 4 * SMALL["num_hidden_layers"]


def test_the_estimate_counts_the_updates_that_there_are():
    config = build_model(0, **SMALL).config
    training = make(LORA.changed(lora_rank=8))
    count = sum(parameter.numel() for parameter in training.distillation.updates.parameters())
    estimates = [
        memory_estimate.estimate_memory(10**6, "float32", config, 1, 64, frozen=True, rank=rank) for rank in (0, 8)
    ]
    assert estimates[1].weights - estimates[0].weights == 18 * count


def test_the_recipe_lies_between_the_two_others():
    lora = RetrofitSettings.from_options({**GIVEN, "recipe_name": "lora", "lora_rank": 8})
    assert (lora.train, lora.update_rank, lora.lr, lora.hard_steps) == ("lora", 8, 2e-4, (150,))
    assert NAMES == ("paper", "lora", "adapters")
    with pytest.raises(RetrofitError, match="--train lora needs --gate separate"):
        RetrofitSettings.from_options({**GIVEN, "recipe_name": "lora", "gate": "borrowed"})
    config = build_model(0, **SMALL).config
    plain = RetrofitSettings.from_options(GIVEN)

    def choose(settings, memory=4 * 10**9):
        return choices.choose_recipe(settings, 10**9, config, 512, memory, print).recipe_name

    assert choose(plain) == "lora"
    # What is to train says which recipe is meant, though another would fit.
    for train, name in (("lora", "lora"), ("all", "paper")):
        assert choose(RetrofitSettings.from_options({**GIVEN, "train": train}), 10**12) == name


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(updates, "is_installed", lambda: False)
    with pytest.raises(RetrofitError, match=r"needs peft.*pip install 'hyperscale-kv\[lora\]'"):
        make(LORA)
    lines = []
    config = build_model(0, **SMALL).config
    plain = RetrofitSettings.from_options(GIVEN)
    chosen = choices.choose_recipe(plain, 10**9, config, 512, 4 * 10**9, lines.append)
    assert chosen.recipe_name == "adapters"
    assert "needs peft: pip install" in lines[0]
