"""The retrofit loop at toy scale, its check, and the whole recipe."""

import dataclasses
import itertools
import json

import pytest
import torch
from checkpoints import SMALL

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import RetrofitError
from hyperscale.mini.benchmarks import generate_problems
from hyperscale.mini.model import build_model
from hyperscale.mini.train import main
from hyperscale.mini.vocab import encode
from hyperscale.retrofit import distillation
from hyperscale.retrofit.gate_check import FAR_KL, MAX_RATIO, GateCheck, check_gates
from hyperscale.retrofit.losses import compression_loss
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit

QUICK = Recipe(
    crs=(2.0, 3.0), steps_per_unit=60, hard_steps=(10,), window=4, accumulate=1, gate_lr=3e-3, groups=2, fade_steps=0
)


VARIANTS = {
    "dmc": {"method": "dmc"},
    "borrowed": {"gate": "borrowed"},
    "borrowed, layer": {"gate": "borrowed", "per": "layer"},
    "layer": {"per": "layer"},
}


def batch(seed, rows=4, length=64):
    """Random ids, two documents a row, one of each kind."""
    ids = torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))
    half = length // 2
    document = (torch.arange(length) >= half).long().expand(rows, length).contiguous()
    kind = document.clone()
    kind[:, half - 1] = kind[:, -1] = -1
    position = (torch.arange(length) % half).expand(rows, length).contiguous()
    return TrainingBatch(ids, position, document, kind, (kind >= 0).float())


def retrofit(recipe, seed=0):
    """A model whose attention matters, but not much: eviction is cheap and follows its target closely."""
    return Retrofit(build_model(seed, **SMALL, initializer_range=0.06), recipe, report=lambda _: None)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- loop ---


@pytest.fixture(scope="module")
def finished():
    """A whole quick retrofit: teacher before, retrofit, and each target's (finished, state, check)."""
    trainer = retrofit(QUICK)
    before = state(trainer.distillation.teacher)
    held_out = [batch(-1), batch(-2)]
    results = [
        (copy, state(copy.model), check_gates(trainer, held_out)) for copy in trainer.run(map(batch, itertools.count()))
    ]
    return before, trainer, results


def test_eviction_rises_with_the_schedule_to_its_target(finished):
    *_, results = finished
    assert [result.cr for result, *_ in results] == [2.0, 3.0]
    assert [result.config.cr for result, *_ in results] == [2.0, 3.0]
    for result, _, check in results:
        assert check.alpha == pytest.approx(1 - 1 / result.cr, abs=0.06)
        assert result.log[-1]["alpha"] == pytest.approx([1 - 1 / result.cr] * 2, abs=0.15)
    log = [entry for entry in results[1][0].log if entry["mode"] == "noisy"]
    assert [entry["step"] for entry in log] == [1, 25, 50, 75, 100]
    means = [sum(entry["alpha"]) / 2 for entry in log]
    assert means[0] < 0.05
    assert means[-1] > means[1] > 0.1
    for entry, mean in zip(log[1:], means[1:], strict=True):
        assert entry["cr"] == pytest.approx(1 + entry["step"] / 60)
        assert mean < 1 - 1 / entry["cr"] + 0.2  # not far ahead of the schedule


def test_a_finished_checkpoint_decides_as_it_trained_and_counts_its_steps(finished):
    *_, results = finished
    for result, _, check in results:
        assert check.ratio < 2
        check.require(result.cr)
        assert result.steps == (result.cr - 1) * 60 + 10
        assert result.tokens == result.steps * 4 * 64


def test_the_teacher_is_not_touched(finished):
    before, trainer, results = finished
    assert equal(before, state(trainer.distillation.teacher))
    assert not any(p.requires_grad or p.grad is not None for p in trainer.distillation.teacher.parameters())
    student = results[-1][1]
    assert all(not torch.equal(student[name], before[name]) for name in before if "layers" in name)
    assert student.keys() - before.keys() == {name for name in student if "dms_" in name}


def trajectory(hard_steps, **changes):
    """(mode, student's weights) at each step, on one and the same batch; and the finished weights."""
    recipe = QUICK.changed(crs=(1.1, 1.2, 1.3), hard_steps=(hard_steps,), gate_lr=1e-3, **changes)
    trainer, steps, first = retrofit(recipe), [], batch(0)

    def batches():
        while True:
            steps.append((trainer.gated.mode, state(trainer.gated.model)))
            yield first

    return [state(result.model) for result in trainer.run(batches())], steps


def test_the_hard_phase_is_a_branch_that_leaves_the_gates_alone():
    ends, steps = trajectory(hard_steps=3)
    assert [mode for mode, _ in steps] == (["noisy"] * 6 + ["hard"] * 3) * 3
    plain_ends, plain = trajectory(hard_steps=0)
    trunk = [weights for mode, weights in steps if mode == "noisy"]
    assert len(trunk) == len(plain) == 18
    assert all(equal(a, b) for a, (_, b) in zip(trunk, plain, strict=True))
    for i, (end, plain_end) in enumerate(zip(ends, plain_ends, strict=True)):
        start = steps[9 * i + 6][1]
        assert equal(start, plain_end)  # the branch starts where the trunk is
        assert not equal(start, end)
        moving = {name for name in end if not torch.equal(start[name], end[name])}
        assert moving
        assert not any("dms_" in name for name in moving)


@pytest.mark.parametrize("train", ["all", "gates"])
def test_a_soft_finish_is_a_branch_in_which_the_gates_go_on(train):
    ends, steps = trajectory(hard_steps=3, finish="soft", train=train)
    plain_ends, plain = trajectory(hard_steps=0, train=train)
    assert {mode for mode, _ in steps} == {"noisy"}
    trunk = [weights for i, (_, weights) in enumerate(steps) if i % 9 < 6]
    assert all(equal(a, b) for a, (_, b) in zip(trunk, plain, strict=True))
    for end, plain_end in zip(ends, plain_ends, strict=True):
        moving = {name for name in end if not torch.equal(plain_end[name], end[name])}
        assert any("dms_proj_alpha.weight" in name for name in moving)
        assert any("q_proj" in name for name in moving) == (train == "all")


@pytest.mark.parametrize(("variant", "steps"), [("borrowed", 160), pytest.param("dmc", 320, marks=pytest.mark.slow)])
def test_neurons_are_held_to_the_ratio_while_the_gates_of_inference_decide(variant, steps, monkeypatch):
    def course():
        """Mean eviction on held-out text through the hard phase."""
        changes = {"crs": (2.0,), "lr": 1e-3, "hard_steps": (steps,), "fade_steps": 10, "finish": "hard"}
        changes |= VARIANTS[variant]
        trainer, held_out, alphas = retrofit(QUICK.changed(**changes)), [batch(-1), batch(-2)], []

        def measure():
            if trainer.phase == "hard" and trainer.phase_steps % 20 == 0:
                alphas.append(check_gates(trainer, held_out).alpha)

        trainer.after_step = measure
        list(trainer.run(map(batch, itertools.count())))
        return alphas

    assert course() == pytest.approx([0.5] * (steps // 20), abs=0.05)
    # What it is for: without the loss they drift, those of dmc slowly.
    monkeypatch.setattr(distillation, "compression_loss", count_while_noisy)
    assert abs(course()[-1] - 0.5) > 0.08


def count_while_noisy(*args, held=False):
    loss, share = compression_loss(*args)
    return loss * (not held), share


def test_hard_phases_may_differ_in_length():
    recipe = QUICK.changed(crs=(1.1, 1.2, 1.3), hard_steps=(2, 0, 3))
    trainer = retrofit(recipe)
    assert recipe.total_steps == 18 + 5
    assert [result.steps for result in trainer.run(map(batch, itertools.count()))] == [6 + 2, 12, 18 + 3]


def test_what_is_minimised_may_count_both_directions():
    kls = {}
    for symmetric in (False, True):
        trainer = retrofit(QUICK.changed(crs=(1.5,), hard_steps=(0,), symmetric=symmetric))
        (result,) = trainer.run(map(batch, itertools.count()))
        kls[symmetric] = [entry["kl"] for entry in result.log]
    assert kls[True][0] > 1.3 * kls[False][0] > 0


def test_a_retrofit_is_a_function_of_its_seed():
    recipe = QUICK.changed(crs=(1.1,), hard_steps=(2,))
    ends = []
    for seed in (0, 0, 1):
        trainer = retrofit(recipe.changed(seed=seed))
        ends.append(next(state(result.model) for result in trainer.run(map(batch, itertools.count()))))
    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


def test_by_the_ledger_the_window_is_made_up_for():
    # 32-token documents of which every token is generated: with a window of 4, 5 entries of the end are held anyway,
    # so half of all entries held asks for more than half of the others to be evicted.
    alphas = []
    for ledger in (False, True):
        trainer = retrofit(QUICK.changed(crs=(2.0,), ledger=ledger))
        alphas += [check_gates(trainer, [batch(-1)]).alpha for _ in trainer.run(map(batch, itertools.count()))]
    assert alphas[0] == pytest.approx(0.5, abs=0.06)
    assert alphas[1] > alphas[0] + 0.06


def test_reach_asks_for_a_share_of_the_ratio():
    trainer = retrofit(QUICK.changed(crs=(3.0,), reach=0.5, steps_per_unit=240))
    for _ in trainer.run(map(batch, itertools.count())):
        assert check_gates(trainer, [batch(-1)]).alpha == pytest.approx(1 - 1 / 1.5, abs=0.06)


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_gates_follow_the_schedule_too(variant):
    changes = {"crs": (2.0,), "lr": 3e-3, **VARIANTS[variant]}
    trainer = retrofit(QUICK.changed(**changes, fade_steps=0 if variant == "layer" else 10))
    ((student, check),) = [
        (student, check_gates(trainer, [batch(-1), batch(-2)]))
        for student in trainer.run(map(batch, itertools.count()))
    ]
    assert student.steps == trainer.recipe.total_steps == (70 if variant == "layer" else 80)
    assert check.alpha == pytest.approx(0.5, abs=0.12)
    assert [entry["mode"] for entry in student.log][:1] == ["noisy" if variant == "layer" else "off"]
    keys = student.config.to_hf()
    if variant == "dmc":
        assert (keys["dmc_cr"], keys["dmc_alpha_scale"]) == (2.0, 100.0)
    else:
        assert (keys["dms_separate_alpha"], keys["dms_alpha_per"]) == (
            variant == "layer",
            "layer" if "layer" in variant else "head",
        )


# --- check ---


def test_gates_that_decide_otherwise_than_they_train_are_refused():
    trainer = retrofit(QUICK)
    # Logits slightly above 0 everywhere: with noise half is kept, without it all is evicted.
    trainer.gated.config = dataclasses.replace(trainer.gated.config, initial_offset=-0.01)
    trainer.gated.mode = "off"
    check = check_gates(trainer, [batch(-1), batch(-2)])
    assert trainer.gated.mode == "off"
    assert check.alpha == 1.0
    assert check.ratio == check.hard / check.noisy > MAX_RATIO
    with pytest.raises(RetrofitError, match=r"ratio 3\.\d, at most 3\); train longer, or with more --hard-steps"):
        check.require(2.0)


@pytest.mark.parametrize(
    ("noisy", "hard", "refused"),
    [(0.01, 0.029, False), (0.01, 0.031, True), (1e-7, 9e-6, False), (0.0, 0.1, True), (0.01, float("nan"), True)],
)
def test_the_check_allows_a_ratio_of_three_and_divergences_that_do_no_harm(noisy, hard, refused):
    check = GateCheck(noisy, hard, 0.5, 0.5)
    if refused:
        with pytest.raises(RetrofitError, match="--hard-steps"):
            check.require(2.0)
    else:
        check.require(2.0)


@pytest.mark.parametrize("hard", [0.49, 0.51])
def test_the_check_warns_of_a_model_far_from_its_base_whatever_its_training_gates_do(hard):
    check = GateCheck(hard, hard, 0.5, 0.5)
    check.require(2.0)
    assert check.warning.startswith("far from its base: KL 0.51") == (hard > FAR_KL)
    assert bool(check.warning) == (hard > FAR_KL)


@pytest.mark.parametrize(
    ("saved", "cr", "refused"),
    [
        (0.0, 2.0, True),
        (0.01, 2.0, True),
        (0.37, 2.0, True),
        (0.38, 2.0, False),
        (0.84, 8.0, True),
        (0.85, 8.0, False),
        (0.0, 1.2, True),
        (0.08, 1.2, True),
        (0.09, 1.2, False),
    ],
)
def test_the_check_asks_for_most_of_the_ratio(saved, cr, refused):
    check = GateCheck(0.0, 0.0, saved, saved)
    if refused:
        with pytest.raises(RetrofitError, match=rf"saves less than asked: {saved:.1%} .* where {cr:g} was aimed at"):
            check.require(cr)
    else:
        check.require(cr)


def test_gates_that_evict_nothing_reach_a_ratio_of_one():
    trainer = retrofit(QUICK)
    trainer.gated.config = dataclasses.replace(trainer.gated.config, initial_offset=50.0)
    check = check_gates(trainer, [batch(-1)])
    assert (check.alpha, check.saved, check.reached) == (0, 0, 1)
    with pytest.raises(RetrofitError, match=r"0\.0% with inference gates .* a ratio of 1\.00 where 3 was aimed at"):
        check.require(3.0)


def test_by_the_ledger_what_the_window_holds_is_not_saved():
    saved = {}
    for ledger in (False, True):
        trainer = retrofit(QUICK.changed(ledger=ledger))
        trainer.gated.config = dataclasses.replace(trainer.gated.config, initial_offset=-50.0)
        saved[ledger] = check_gates(trainer, [batch(-1)]).saved
    # The last entry of a row has no verdict. Of 32 entries of a document, 5 lie in the window at its end.
    assert 0.95 < saved[False] <= 1
    assert saved[True] < 1 - 4 / 32


def test_a_check_on_no_batch_is_refused():
    with pytest.raises(RetrofitError, match="at least one held-out batch"):
        check_gates(retrofit(QUICK), [])


# --- recipe ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    main(["--toy", "--out", str(folder), "--device", "cpu"])
    return folder


@pytest.mark.e2e
def test_the_recipe_writes_checkpoints_and_what_it_did(trained):
    assert {path.name for path in trained.iterdir()} == {"base", "dms2", "training.json"}
    record = json.loads((trained / "training.json").read_text())
    assert record["base"]["tokens"] == 20 * 2 * 512
    (dms,) = record["dms"]
    assert dms["cr"] == 2
    assert dms["steps"] == 12
    assert len(dms["log"][0]["alpha"]) == 3
    config = json.loads((trained / "dms2" / "config.json").read_text())
    assert (config["dms_window_size"], config["dms_cr"], config["dtype"]) == (16, 2.0, "bfloat16")
    assert "dms_window_size" not in json.loads((trained / "base" / "config.json").read_text())


def test_the_base_loads_with_plain_transformers(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, info = AutoModelForCausalLM.from_pretrained(trained / "base", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(trained / "base")
    chat = [{"role": "user", "content": generate_problems("lcb", 1)[0].prompt}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = base.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert 1 <= output.shape[1] - inputs["input_ids"].shape[1] <= 8


@pytest.mark.parametrize(("name", "method"), [("base", "vanilla"), ("dms2", "dms")])
def test_the_checkpoints_decode(trained, name, method):
    model, tokenizer = load_model(trained / name)
    engine = TorchEngine(model, tokenizer, methods.create(method, cr=1 if method == "vanilla" else 2))
    prompt = tuple(encode(generate_problems("aime", 1)[0].prompt))
    (chain,) = engine.generate([Request("p", 0, prompt, 24)], Sampling())
    assert 1 <= len(chain.token_ids) <= 24
    assert max(chain.token_ids) < len(tokenizer)


@pytest.mark.e2e
def test_the_recipe_makes_dmc_checkpoints_beside_the_base(trained, tmp_path):
    main(["--toy", "--method", "dmc", "--base", str(trained / "base"), "--out", str(tmp_path), "--device", "cpu"])
    assert {path.name for path in tmp_path.iterdir()} == {"dmc2", "training.json"}
    (record,) = json.loads((tmp_path / "training.json").read_text())["dmc"]
    assert record["steps"] == 4 + 12
    assert record["log"][0]["mode"] == "off"
    base, dmc = load_model(trained / "base")[0], load_model(tmp_path / "dmc2")[0]
    assert base.state_dict().keys() == dmc.state_dict().keys()  # it adds no parameters
    prompt = tuple(encode(generate_problems("aime", 1)[0].prompt))
    engine = TorchEngine(*load_model(tmp_path / "dmc2"), methods.create("dmc", cr=2))
    (chain,) = engine.generate([Request("p", 0, prompt, 24)], Sampling())
    assert 1 <= len(chain.token_ids) <= 24
