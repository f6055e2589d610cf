"""The recipe that trains the gates' projections alone: one model teaches and learns, and its own weights stay."""

import itertools

import pytest
import torch
from checkpoints import SMALL

from hyperscale.errors import RetrofitError
from hyperscale.mini.model import build_model
from hyperscale.retrofit import choices, memory_estimate
from hyperscale.retrofit.gate_check import check_gates
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.recipes import NAMES
from hyperscale.retrofit.settings import Recipe, RetrofitSettings
from hyperscale.retrofit.trainer import Retrofit

GATES = Recipe(crs=(2.0, 3.0), steps_per_unit=60, hard_steps=(0,), window=4, accumulate=1, gate_lr=1e-2, train="gates")
GIVEN = {"model": "mini", "data": "text.jsonl", "out": "out"}


def batch(seed):
    ids = torch.randint(0, 64, (4, 64), generator=torch.Generator().manual_seed(seed))
    position = torch.arange(64).expand(4, 64).contiguous()
    kind = torch.zeros_like(ids)
    kind[:, -1] = -1
    return TrainingBatch(ids, position, torch.zeros_like(ids), kind, (kind >= 0).float())


def make(recipe, **more):
    return Retrofit(build_model(0, **SMALL, initializer_range=0.06), recipe, report=lambda _: None, **more)


def test_the_gates_learn_and_nothing_else_moves():
    training = make(GATES)
    assert training.distillation.teacher is training.gated.model
    before = {name: value.clone() for name, value in training.gated.model.state_dict().items()}
    gates = {name for name in before if "dms_proj_alpha." in name}
    ratios = []
    for made in training.run(map(batch, itertools.count())):
        ratios.append(made.cr)
        check = check_gates(training, [batch(-1), batch(-2)])
        assert check.alpha == pytest.approx(1 - 1 / made.cr, abs=0.08)
        after = made.model.state_dict()
        assert {name for name in before if not torch.equal(before[name], after[name])} == gates
    assert ratios == [2.0, 3.0]


@pytest.mark.parametrize("frugal", [False, True])
def test_gates_get_the_gradient_that_they_get_beside_a_teacher_of_its_own(frugal):
    """The student starts as the teacher in both, so the first gradient is the same."""
    gradients = []
    for train in ("all", "gates"):
        training = make(GATES.changed(train=train), frugal=frugal)
        for parameter in training.gated.gate_parameters():
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(7))
        torch.manual_seed(3)
        training.gated.mode = "noisy"
        loss, divergence, _ = training.distillation.losses(batch(5), 2.0)
        assert divergence > 0
        loss.backward()
        gradients.append([parameter.grad for parameter in training.gated.gate_parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-8) for a, b in zip(*gradients, strict=True))
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-5


def test_a_recipe_gives_what_is_not_given():
    adapters = RetrofitSettings.from_options({**GIVEN, "recipe_name": "adapters", "gate_lr": 5e-4})
    assert (adapters.train, adapters.hard_steps, adapters.gate_lr) == ("gates", (0,), 5e-4)
    assert RetrofitSettings.from_options({**GIVEN, "recipe_name": "paper"}).train == "all"
    plain = RetrofitSettings.from_options({**GIVEN, "window": 64})
    assert plain.with_recipe("adapters").window == 64
    for values, reason in (
        ({"recipe_name": "adapters", "hard_steps": (9,)}, "nothing that trains in steps with inference's gates"),
        ({"train": "gates", "gate": "borrowed"}, "--train gates needs --gate separate"),
        ({"recipe_name": "cheap"}, "--recipe must be"),
    ):
        with pytest.raises(RetrofitError, match=reason):
            RetrofitSettings.from_options({**GIVEN, **values})


def test_the_first_recipe_that_fits_is_chosen():
    config = build_model(0, **SMALL).config
    plain = RetrofitSettings.from_options(GIVEN)
    needs = [
        memory_estimate.estimate_memory(10**9, "float32", config, 1, 512, frozen=frozen) for frozen in (False, True)
    ]
    whole, frozen = (each.weights + each.activations for each in needs)
    assert frozen < whole / 5
    # Updates take a few bytes more than gates alone.
    least = int(frozen / memory_estimate.USABLE) + 1
    memories = {2 * whole: "paper", 2 * frozen: "lora", least: "adapters", frozen // 2: NAMES[0]}
    for memory, name in memories.items():
        assert choices.choose_recipe(plain, 10**9, config, 512, memory, print).recipe_name == name
    # What would fit in fewer bytes a weight is told, and not taken.
    said = []
    half = memory_estimate.estimate_memory(10**9, "bfloat16", config, 1, 512)
    room = int((half.weights + half.activations) / memory_estimate.USABLE) + 1
    assert choices.choose_recipe(plain, 10**9, config, 512, room, said.append).recipe_name == "lora"
    assert said == ["recipe paper would fit with --weights bfloat16"]
    borrowed = RetrofitSettings.from_options({**GIVEN, "gate": "borrowed"})
    assert choices.choose_recipe(borrowed, 10**9, config, 512, 2 * frozen, print).recipe_name == "paper"
    with pytest.raises(RetrofitError, match="--recipe adapters takes 19 GiB and activations"):
        memory_estimate.require_memory(
            memory_estimate.estimate_memory(10**10, "bfloat16"), "m", "bfloat16", ("a GPU", 40 << 30)
        )


def test_memory_that_several_gpus_would_take_is_told_of_one():
    for parameters, memory, advice in (
        (32 * 10**9, 140 << 30, "--weights bfloat16 takes 104 GiB of a GPU"),
        (72 * 10**9, 140 << 30, "--recipe adapters takes 34 GiB of a GPU"),
        (72 * 10**9, 24 << 30, "even with --recipe adapters it takes 34 GiB of a GPU"),
    ):
        estimate = memory_estimate.estimate_memory(parameters, "float32", gpus=4)
        with pytest.raises(RetrofitError, match=advice):
            memory_estimate.require_memory(estimate, "m", "float32", ("a GPU", memory), gpus=4)
