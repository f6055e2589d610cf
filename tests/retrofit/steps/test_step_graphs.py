"""Steps that are recorded as CUDA graphs and replayed, against the same steps launched kernel by kernel."""

import pytest
import torch
from checkpoints import SMALL

from hyperscale.errors import RetrofitError
from hyperscale.mini.model import build_model
from hyperscale.retrofit.losses import LOSS_TOKENS
from hyperscale.retrofit.packing import CountedPlaces, TrainingBatch
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.steps import step_graphs
from hyperscale.retrofit.steps.step_graphs import PARTS, pad_places
from hyperscale.retrofit.trainer import Retrofit

gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECIPE = Recipe(crs=(2.0,), steps_per_unit=200, hard_steps=(3,), window=4, accumulate=2, ledger=True, warmup=1)
STEPS = 12


def test_padded_places_weigh_nothing():
    counted = CountedPlaces(torch.tensor([3, 5, 6]), torch.tensor([1.0, 1.0, 0.5]))
    padded = pad_places(counted)
    assert len(padded.places) == len(padded.weights) == PARTS * LOSS_TOKENS
    assert padded.weights.sum() == 2.5
    assert len(pad_places(padded).places) == len(padded.places)
    # A batch of which nothing counts has a graph too.
    assert (
        len(pad_places(CountedPlaces(torch.zeros(0, dtype=torch.long), torch.zeros(0))).places) == PARTS * LOSS_TOKENS
    )


def batches(length=96):
    """Two documents a row; how many tokens count differs from batch to batch."""
    number = 0
    while True:
        ids = torch.randint(0, 64, (2, length), generator=torch.Generator().manual_seed(number))
        document = (torch.arange(length) >= length // 2).long().expand(2, length).contiguous()
        kind = torch.zeros_like(document)
        kind[:, length // 2 - 1] = kind[:, -1] = -1
        weight = (kind >= 0).float()
        weight[:, : 7 * (number % 4)] = 0
        position = (torch.arange(length) % (length // 2)).expand(2, length).contiguous()
        yield TrainingBatch(ids, position, document, kind, weight)
        number += 1


def train(*, recorded, frugal, mode="noisy", disturb=None, **changes):
    """The weights that train, and the losses, after some steps."""
    torch._dynamo.reset()
    said, sums = [], []
    recipe = RECIPE.changed(**changes)
    teacher = build_model(0, **SMALL).cuda()
    training = Retrofit(teacher, recipe, report=said.append, frugal=frugal, recompute=False)
    assert training.graphs is not None
    if not recorded:
        training.graphs = None
    training.gated.mode = mode
    training.phase = "noisy"
    optimizer = training._optimizer(gates=mode == "noisy")
    data = batches()
    add = training._add_gradients

    def watch(batch, cr):
        found = add(batch, cr)
        sums.append(torch.stack([found.loss, found.divergence]))
        return found

    training._add_gradients = watch
    for step in range(STEPS):
        training.steps += 1
        if disturb:
            disturb(training, step)
        training._step(optimizer, data, 1.0 + step / STEPS, lr_factor=1.0)
    weights = {name: p.detach() for name, p in training.gated.model.named_parameters() if p.requires_grad}
    return weights, torch.stack(sums), training, said


def same(one, other):
    """Both trainings have learned the same, but for the order of sums."""
    torch.testing.assert_close(one[1], other[1], rtol=2e-3, atol=1e-5)
    assert one[0].keys() == other[0].keys()
    for name, weight in one[0].items():
        # AdamW's first steps have the size of the rate, whatever the gradient: a few numbers may turn.
        close = torch.isclose(other[0][name], weight, rtol=1e-3, atol=2e-5)
        assert close.float().mean() > 0.98, name


def recorded_graphs(training):
    return len(training.graphs._graphs)


@gpu
@needs_cuda
@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("noisy", {}),
        ("hard", {}),
        ("noisy", {"train": "gates", "finish": "soft"}),
        ("noisy", {"gate": "borrowed"}),
        ("noisy", {"method": "dmc"}),
        ("hard", {"method": "dmc", "finish": "hard"}),
    ],
    ids=["paper", "hard gates", "adapters", "borrowed neurons", "dmc", "dmc, hard gates"],
)
def test_recorded_steps_learn_what_launched_ones_do(mode, changes, frugal, monkeypatch):
    monkeypatch.setattr(step_graphs, "LOSS_TOKENS", 8)  # batches of several numbers of parts
    launched = train(recorded=False, frugal=frugal, mode=mode, **changes)
    recorded = train(recorded=True, frugal=frugal, mode=mode, **changes)
    same(launched, recorded)
    assert recorded_graphs(recorded[2]) == (2 if frugal else 1)


@gpu
@needs_cuda
def test_weights_that_move_are_followed():
    """As when a checkpoint is written in another type: the graphs would go on with what lies at the old places."""

    def move(training, step):
        if step == 5:
            for weight in training.gated.model.parameters():
                weight.data = weight.data.double().float() * 1.0

    same(train(recorded=False, frugal=True, disturb=move), train(recorded=True, frugal=True, disturb=move))


@gpu
@needs_cuda
def test_gradients_that_were_dropped_are_begun_anew():
    def drop(training, step):
        if step == 4:
            training.gated.model.zero_grad(set_to_none=True)

    same(train(recorded=False, frugal=True), train(recorded=True, frugal=True, disturb=drop))


@gpu
@needs_cuda
def test_a_step_that_cannot_be_recorded_is_told():
    """A wait for the device ends a recording, and what the process does with the GPU afterwards is not sure."""

    def wait(training, step):
        if step == 0:
            plain = training.distillation.losses_of

            def waiting(*args):
                found = plain(*args)
                found[0].item()
                return found

            training.distillation.losses_of = waiting

    with pytest.raises(RetrofitError, match="--no-cuda-graphs"):
        train(recorded=True, frugal=True, disturb=wait)
