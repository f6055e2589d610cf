"""A step whose layers, gates and loss are compiled, as on a GPU, against the same step taken operation by operation."""

import itertools

import pytest
import torch
from checkpoints import SMALL

from hyperscale.mini.model import build_model
from hyperscale.retrofit.attention.packed_attention import compile_layers
from hyperscale.retrofit.gates.gated_model import decide_with_noise
from hyperscale.retrofit.memory_estimate import estimate_memory
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit

RECIPE = Recipe(crs=(2.0,), steps_per_unit=10, hard_steps=(3,), window=4, accumulate=1, ledger=True, symmetric=True)


def batch(seed, length=64):
    """Two documents a row; how many tokens the loss counts differs from batch to batch."""
    ids = torch.randint(0, 64, (2, length), generator=torch.Generator().manual_seed(seed))
    document = (torch.arange(length) >= length // 2).long().expand(2, length).contiguous()
    kind = torch.zeros_like(document)
    kind[:, length // 2 - 1] = kind[:, -1] = -1
    weight = (kind >= 0).float()
    weight[:, : 3 + seed] = 0
    return TrainingBatch(ids, torch.arange(length).expand(2, length) % (length // 2), document, kind, weight)


def take_step(seeds, *, compiled, mode="noisy", **changes):
    """Loss and gradients of each batch."""
    torch._dynamo.reset()
    training = Retrofit(build_model(0, **SMALL), RECIPE.changed(**changes), report=lambda _: None, frugal=True)
    assert not training.distillation.compiled  # on a CPU it does not pay
    if compiled:
        training.distillation.compiled = True
        training.gated.compile_decisions()
        compile_layers(training.gated.model)
    training.gated.mode = mode
    found = []
    for seed in seeds:
        training.distillation.seed_noise(seed)
        loss, *_ = training.distillation.losses(batch(seed), 1.5)
        loss.backward()
        gradients = {name: p.grad for name, p in training.gated.model.named_parameters() if p.grad is not None}
        training.gated.model.zero_grad(set_to_none=True)
        found.append((loss.detach(), gradients))
    return found


@pytest.mark.e2e
@pytest.mark.parametrize(
    "changes", [{}, {"per": "layer", "eviction": "immediate"}], ids=["each head", "a layer, as tokens leave"]
)
def test_loss_and_gradients_are_those_of_single_operations(changes):
    seeds = (0, 5)
    for mode in ("noisy", "hard"):
        plain = take_step(seeds, compiled=False, mode=mode, **changes)
        fused = take_step(seeds, compiled=True, mode=mode, **changes)
        for (loss, gradients), (fused_loss, fused_gradients) in zip(plain, fused, strict=True):
            assert loss > 0
            torch.testing.assert_close(fused_loss, loss, rtol=1e-4, atol=1e-6)
            assert gradients.keys() == fused_gradients.keys()
            assert any("dms_proj_alpha.weight" in name for name in gradients) == (mode == "noisy")
            for name, gradient in gradients.items():
                torch.testing.assert_close(fused_gradients[name], gradient, rtol=2e-3, atol=1e-6, msg=name)


def test_activations_that_are_kept_give_the_same_gradients():
    found = []
    for recompute in (True, False):
        training = Retrofit(build_model(0, **SMALL), RECIPE, report=lambda _: None, frugal=True, recompute=recompute)
        assert hasattr(training.gated.model.model.layers[0].forward, "func") == recompute  # wrapped, to be called twice
        training.distillation.seed_noise(3)
        loss, *_ = training.distillation.losses(batch(3), 1.5)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in training.gated.model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    config = training.gated.model.config
    least, most = (estimate_memory(10**6, "float32", config, 4, 4096, kept=kept) for kept in (False, True))
    assert most.weights == least.weights
    assert most.activations > least.activations


def test_several_parts_of_one_size_are_the_loss():
    """Parts that are padded to one size, as compiled ones are, weigh what they weighed."""
    from hyperscale.retrofit import losses

    torch.manual_seed(0)
    head, other = torch.nn.Linear(8, 20), torch.nn.Linear(8, 20)
    student, teacher = torch.randn(2, 15, 8, requires_grad=True), torch.randn(2, 15, 8)
    weight = (torch.rand(2, 15) > 0.3).float()
    sizes = []

    def divergence(a, *rest):
        sizes.append(len(a))
        return losses.distillation_loss(a, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "compile_divergence", lambda: divergence)
        fused = losses.distillation_loss_in_parts(student, teacher, head, other, weight, part=4, compiled=True)
    plain = losses.distillation_loss(head(student), other(teacher).detach(), weight)
    torch.testing.assert_close(fused, plain)
    assert set(sizes) == {4}
    for found, expected in zip(
        *(torch.autograd.grad(loss, [student, head.weight]) for loss in (fused, plain)), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_transformers_looks_for_no_documents_of_its_own(monkeypatch):
    """It would read the positions, and on a GPU wait for the device, in every forward pass of student and teacher."""
    from transformers import masking_utils

    looked = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda positions: looked.append(positions))
    take_step([0], compiled=False)
    assert not looked


# --- on a GPU ---

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
KINDS = {
    "separate": {},
    "adapters": {"train": "gates", "finish": "soft"},
    "borrowed": {"gate": "borrowed"},
    "dmc": {"method": "dmc"},
}


def on_gpu(**changes):
    torch._dynamo.reset()
    recipe = RECIPE.changed(steps_per_unit=200, fade_steps=0, **changes)
    training = Retrofit(build_model(0, **SMALL).cuda(), recipe, report=lambda _: None, frugal=True)
    assert training.distillation.compiled
    training.report_seconds = 1e9  # compiling takes long, and a step that is read out waits
    return training


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=GPU) for kind in KINDS])
def test_no_step_waits_for_the_device(kind, fused):
    training = on_gpu(**KINDS[kind])
    training.distillation.fused = fused
    batches = (batch(seed % 9, length=256) for seed in itertools.count())
    for gates, mode in ((True, "noisy"), (False, training.recipe.finish_mode)):
        training.gated.mode = mode
        optimizer = training._optimizer(gates=gates)
        for step in (2, 3, 4):  # the first ones compile; none is one that is read out
            training.steps = step
            torch.cuda.set_sync_debug_mode("error" if step == 4 else "default")
            try:
                training._step(optimizer, batches, 1.5, lr_factor=1.0)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    training.require_finite()


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=GPU) for kind in ("separate", "adapters")])
def test_a_gpus_loss_is_that_of_single_operations(kind):
    losses = []
    for compiled, fused in ((True, False), (True, True), (False, False)):
        training = on_gpu(**KINDS[kind])
        training.distillation.fused = fused
        if not compiled:
            training.distillation.compiled, training.gated._decide = False, decide_with_noise
        training.distillation.seed_noise(3)
        loss, _, share = training.distillation.losses(batch(3, length=256), 1.5)
        losses.append(torch.cat([loss[None], share.flatten()]).detach().cpu())
    for loss in losses[:2]:
        torch.testing.assert_close(loss, losses[2], rtol=2e-2, atol=1e-3)
