"""AdamW over weights in bfloat16: large ones are stepped piece by piece."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hyperscale.retrofit.steps import optimizer


def train(weight, gradients):
    weight = torch.nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    adam = optimizer.adamw([([weight], 1e-3), ([], 1.0)])
    assert isinstance(adam, optimizer.StochasticAdamW)
    for gradient in gradients:
        weight.grad = gradient.clone(memory_format=torch.preserve_format)
        adam.step()
    return weight.detach(), optimizer.take_moments(adam)[0]


@pytest.mark.parametrize("contiguous", [True, False])
def test_pieces_are_stepped_as_the_whole_is(contiguous, monkeypatch):
    # To the nearest: where the noise falls depends on the pieces.
    monkeypatch.setattr(optimizer, "round_stochastically", lambda value: value.to(torch.bfloat16))
    torch.manual_seed(0)
    weight, *gradients = (torch.randn(7, 9).to(torch.bfloat16) for _ in range(4))
    if not contiguous:
        weight, *gradients = (tensor.t() for tensor in (weight, *gradients))
    whole, moments = train(weight, gradients)
    monkeypatch.setattr(optimizer, "PIECE", 10)
    pieces, same_moments = train(weight, gradients)
    assert torch.equal(pieces, whole)
    assert not torch.equal(whole, weight)
    assert moments["step"] == same_moments["step"] == len(gradients)
    for name in ("mean", "square"):
        assert torch.equal(moments[name], same_moments[name])
    # And the whole is torch's AdamW, but for the rounding of three steps of 1e-3.
    exact = torch.nn.Parameter(weight.float())
    reference = torch.optim.AdamW([exact], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for gradient in gradients:
        exact.grad = gradient.float()
        reference.step()
    torch.testing.assert_close(whole.float(), exact.detach(), rtol=2**-7, atol=1e-3)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that an operation makes, views of others aside."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, leaf.numel())
        return made


def test_a_step_takes_the_memory_of_a_piece(monkeypatch):
    monkeypatch.setattr(optimizer, "PIECE", 100)
    weight = torch.nn.Parameter(torch.randn(50, 40).to(torch.bfloat16))
    adam = optimizer.adamw([([weight], 1e-3)])
    found = []
    for _ in range(2):
        weight.grad = torch.randn_like(weight)
        with LargestTensor() as largest:
            adam.step()
        found.append(largest.elements)
    assert found == [weight.numel(), 100]  # the first step makes the moments
