"""The kernels of training attention against the dense form; on the CPU with TRITON_INTERPRET=1."""

import pytest
import torch
from checkpoints import SMALL
from interpreted import CUDA, DEVICE, MARKS

from hyperscale.mini.model import build_model
from hyperscale.retrofit.attention import fused
from hyperscale.retrofit.attention.fused import Launch, Launches
from hyperscale.retrofit.attention.masks import PackingMasks, document_spans
from hyperscale.retrofit.attention.packed_attention import packed_attention
from hyperscale.retrofit.packing import TrainingBatch
from hyperscale.retrofit.settings import Recipe
from hyperscale.retrofit.trainer import Retrofit

pytestmark = MARKS
#: Small blocks, queries and keys of different numbers, so that few tokens are many blocks.
BLOCKS = Launches(Launch(32, 16, 4, 1), Launch(16, 32, 4, 1), Launch(16, 32, 4, 1))


#: That what a compiler is told of shapes and strides is so; the operation has no gradient of its own.
LAYOUT = ("test_schema", "test_faketensor")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    if not CUDA:
        monkeypatch.setattr(fused, "LAUNCHES", dict.fromkeys(fused.LAUNCHES, BLOCKS))


def documents(*rows):
    return torch.tensor([[number for number, length in row for _ in range(length)] for row in rows], device=DEVICE)


#: 90 tokens: documents that begin and end inside blocks, one of a token, padding; one document; padding alone.
ROWS = documents([(0, 37), (1, 1), (2, 45), (-1, 7)], [(0, 90)])
PADDED = documents([(0, 70)], [(-1, 70)])
SHORT = documents([(0, 41), (-1, 3)])


def inputs(document, group, dim, *, biased, seed=0, kv_heads=2):
    """Queries and keys as projections make them, heads within tokens; biases of keys kept, evicted and in between."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = document.shape
    q, k, v = (
        torch.randn(rows, length, heads, dim, generator=generator).to(DEVICE).transpose(1, 2).requires_grad_()
        for heads in (kv_heads * group, kv_heads, kv_heads)
    )
    kind = torch.randint(0, 3, (rows, length, kv_heads), generator=generator)
    soft = -3 * torch.rand(rows, length, kv_heads, generator=generator)
    bias = torch.where(kind == 0, soft, torch.where(kind == 1, -20.0, 0.0)).to(DEVICE).requires_grad_()
    return [q, k, v, bias] if biased else [q, k, v]


def masks(document, window, *, by_kernels=True):
    return PackingMasks.build(document, window, fused=True) if by_kernels else PackingMasks(document, window)


def attend(tensors, masks):
    module = torch.nn.Module()
    module.key_bias = tensors[3] if len(tensors) > 3 else None
    return packed_attention(module, *tensors[:3], None, masks=masks)[0]


def with_gradients(tensors, masks, seed=9):
    out = attend(tensors, masks)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    return [out.detach(), *torch.autograd.grad(out, tensors, weight)]


def close(found, expected, tolerance):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


TOLERANCE = 2e-2 if CUDA else 3e-5  # TF32 products on CUDA


@pytest.mark.parametrize(
    ("document", "group", "dim", "window", "biased"),
    [
        (ROWS, 3, 64, 20, True),
        (ROWS, 1, 64, 0, True),
        (ROWS, 2, 16, 5, True),
        (SHORT, 6, 128, 13, True),
        (PADDED, 1, 24, 500, True),  # padded to 32; a window longer than any document
        (ROWS, 3, 64, 20, False),
        (documents([(0, 1)]), 2, 16, 3, True),
    ],
)
def test_outputs_and_gradients_are_those_of_the_dense_form(document, group, dim, window, biased):
    tensors = inputs(document, group, dim, biased=biased, kv_heads=1 if group > 2 else 2)
    dense = with_gradients(tensors, masks(document, window, by_kernels=False))
    found = with_gradients(tensors, masks(document, window))
    close(found, dense, TOLERANCE)
    if document.shape[1] == 1:
        return
    assert all(part.abs().max() > 0.05 for part in dense[:4])
    if biased and window < 100:
        assert dense[4].abs().max() > 0.05
        # The negative control: with another window the result is another one.
        others = with_gradients(tensors, masks(document, window + 1))
        for place in (0, 2, 3, 4):
            assert (others[place] - dense[place]).abs().max() > 1e-2
    elif biased:
        assert not found[4].any()


def test_products_of_sixteen_bits():
    """Sums are in float32 all the same. (Triton's interpreter has no bfloat16.)"""
    exact = inputs(ROWS, 2, 32, biased=True)
    half = [t.detach().to(torch.float16 if place < 3 else t.dtype).requires_grad_() for place, t in enumerate(exact)]
    found, dense = with_gradients(half, masks(ROWS, 6)), with_gradients(exact, masks(ROWS, 6, by_kernels=False))
    assert [part.dtype for part in found] == [torch.float16] * 4 + [torch.float32]
    for part, reference in zip(found, dense, strict=True):
        assert (part.float() - reference).norm() < 2e-3 * reference.norm()


def test_parts_of_a_group_add_up(monkeypatch):
    """One program for a whole group, one for each of its heads and something in between: the same sums."""
    tensors = inputs(SHORT, 6, 16, biased=True, kv_heads=1)
    blocks = -(-SHORT.shape[1] // fused.launches_for(tensors[0]).key.keys)
    found, counts = [], set()
    for programs in (1, 3 * blocks, 10**6):
        monkeypatch.setattr(fused, "_PROGRAMS", programs)
        counts.add(fused._parts(6, blocks))
        found.append(with_gradients(tensors, masks(SHORT, 10)))
    assert counts == {1, 3, 6}
    for one in found[1:]:
        close(one, found[0], TOLERANCE)


def test_nothing_leaks_between_documents():
    tensors = inputs(ROWS, 2, 16, biased=True)
    out = attend(tensors, masks(ROWS, 4))
    gradients = torch.autograd.grad(out[0, 38:83].sum(), tensors)  # (batch, tokens, heads, dim)
    for gradient in gradients[:3]:
        assert gradient[0, :, 38:83].any()
        assert not gradient[0, :, :38].any()
        assert not gradient[0, :, 83:].any()
        assert not gradient[1].any()
    d_bias = gradients[3]  # (batch, tokens, kv_heads)
    assert d_bias[0, 38:78].any()
    assert not d_bias[0, :38].any()
    assert not d_bias[0, 78:].any()  # younger than the window to all that come after


@pytest.mark.parametrize("lowest", [-1e4, float("-inf")])
def test_evicted_keys_count_nothing(lowest):
    """A key that is gone is as one that is not there, to queries beyond the window, and has no gradient from them."""
    document = documents([(0, 80)])
    q, k, v, _ = inputs(document, 2, 16, biased=True)
    bias = torch.zeros(1, 80, 2, device=DEVICE)
    bias[:, 3:40] = lowest
    bias.requires_grad_()
    out, dq, dk, dv, d_bias = with_gradients([q, k, v, bias], masks(document, 8))
    assert all(part.isfinite().all() for part in (out, dq, dk, dv, d_bias))
    assert not d_bias[:, 3:40].any()
    assert d_bias[:, :3].any()
    moved = v.detach().clone()
    moved[:, :, 3:40] += 5.0
    other = attend([q, k, moved, bias], masks(document, 8))
    changed = (other - out).abs().amax((0, 2, 3)) > 1e-3
    assert changed[3:48].all()
    assert not changed[48:].any()


@pytest.mark.parametrize("programs", [1, 10**6], ids=["whole groups", "groups in parts"])
def test_a_compiler_takes_it_as_one_operation(programs, monkeypatch):
    monkeypatch.setattr(fused, "_PROGRAMS", programs)
    document = documents([(0, 20), (1, 13)])
    tensors = inputs(document, 2, 16, biased=True)
    spans = document_spans(document)
    bias = tensors[3].detach().transpose(1, 2).contiguous().requires_grad_()
    leaves = [t.detach().requires_grad_() for t in tensors[:3]]
    for own in (bias, None):
        arguments = (*leaves, own, *spans)
        torch.library.opcheck(fused._attend, (*arguments, 4, 0.25), rtol=TOLERANCE, atol=TOLERANCE)
        out, sums = fused._attend(*arguments, 4, 0.25)
        given = (out.detach(), *(t if t is None else t.detach() for t in arguments), out.detach(), sums.detach())
        torch.library.opcheck(fused._attend_backward, (*given, 4, 0.25), test_utils=LAYOUT)
    backend = "inductor" if CUDA else "aot_eager"
    compiled = torch.compile(attend, dynamic=False, fullgraph=True, backend=backend)
    out = compiled(tensors, masks(document, 4))
    close(
        [out, *torch.autograd.grad(out.sum(), tensors)],
        [(plain := attend(tensors, masks(document, 4))), *torch.autograd.grad(plain.sum(), tensors)],
        TOLERANCE,
    )


@pytest.mark.skipif(CUDA, reason="bfloat16 there, and FlexAttention: test_retrofit_compiled.py")
@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        pytest.param({}, "noisy", id="separate-noisy"),
        pytest.param({}, "hard", id="separate-hard", marks=pytest.mark.slow),
        pytest.param({"gate": "borrowed"}, "noisy", id="borrowed-noisy", marks=pytest.mark.slow),
        pytest.param({"gate": "borrowed"}, "hard", id="borrowed-hard"),
        pytest.param({"method": "dmc"}, "noisy", id="dmc-noisy"),
        pytest.param({"method": "dmc"}, "hard", id="dmc-hard", marks=pytest.mark.slow),
    ],
)
def test_a_step_of_training_is_that_of_the_dense_form(changes, mode):
    """Loss and gradients of each kind of gates, activations computed again."""
    place = torch.arange(64).expand(2, 64).contiguous()
    document, ids = (place >= 40).long(), place % 7
    batch = TrainingBatch(ids, place - 40 * document, document, torch.zeros_like(ids), torch.ones(2, 64))
    found = []
    for own in (True, False):
        recipe = Recipe(crs=(2.0,), window=4, steps_per_unit=10, hard_steps=(3,), accumulate=1, symmetric=True)
        training = Retrofit(build_model(0, **SMALL), recipe.changed(**changes), report=lambda _: None, frugal=True)
        training.distillation.fused, training.gated.mode = own, mode
        training.distillation.seed_noise(3)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():  # a student that differs from its teacher and evicts
            for name, parameter in training.gated.model.named_parameters():
                size = 3.0 if "dms_proj_alpha." in name else 0.05
                parameter += size * torch.randn(parameter.shape, generator=generator)
        loss, *_ = training.distillation.losses(batch, 1.5)
        loss.backward()
        parameters = training.gated.model.named_parameters()
        found.append({"loss": loss.detach(), **{name: p.grad for name, p in parameters if p.grad is not None}})
    own, dense = found
    assert dense["loss"] > 1e-2
    assert own.keys() == dense.keys()
    for name, gradient in dense.items():
        torch.testing.assert_close(own[name], gradient, rtol=2e-3, atol=2e-6, msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_spans_of_documents(seed):
    generator = torch.Generator().manual_seed(seed)
    document = (torch.rand(2, 12, generator=generator) < 0.4).long().cumsum(1)
    document[0, 9:] = -1
    starts, ends = document_spans(document.to(DEVICE))
    for row, start, end in zip(document.tolist(), starts.tolist(), ends.tolist(), strict=True):
        for place, number in enumerate(row):
            assert start[place] == row.index(number)
            assert end[place] == 12 - row[::-1].index(number)


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize(("group", "dim", "biased"), [(6, 128, True), (3, 64, True), (6, 128, False), (2, 80, True)])
def test_bfloat16_is_as_exact_as_flex_attention(group, dim, biased):
    """The errors of both, against the dense form in float32."""
    document = documents([(0, 900), (1, 100), (2, 1000), (-1, 48)], [(0, 2048)])
    exact = inputs(document, group, dim, biased=biased)
    expected = with_gradients(exact, masks(document, 256, by_kernels=False))
    rounded = [t.detach().to(torch.bfloat16 if i < 3 else torch.float32).requires_grad_() for i, t in enumerate(exact)]
    errors = []
    for own in (True, False):
        if not own and dim & (dim - 1):
            continue
        found = with_gradients(rounded, PackingMasks.build(document, 256, fused=own))
        errors.append([float((a.float() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)])
    assert all(error < 0.02 for error in errors[0])
    for own, flex in zip(*errors, strict=True) if len(errors) > 1 else ():
        assert own < 1.5 * flex + 1e-3
