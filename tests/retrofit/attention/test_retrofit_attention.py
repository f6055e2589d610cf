"""Training attention over packed documents: dense against plain arithmetic, block-sparse against dense."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from hyperscale.errors import ModelError
from hyperscale.retrofit.attention import packed_attention as attention
from hyperscale.retrofit.attention.masks import PackingMasks
from hyperscale.retrofit.attention.packed_attention import packed_attention

HEADS, KV_HEADS, DIM = 4, 2, 16
SCALE = DIM**-0.5


def tensors(length, rows=2, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, HEADS, length, DIM), (rows, KV_HEADS, length, DIM), (rows, KV_HEADS, length, DIM)]
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def documents(*rows):
    return torch.tensor([[number for number, length in row for _ in range(length)] for row in rows])


def biases(length, rows=2, seed=1):
    """Kept keys, evicted keys and keys in between."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, length, KV_HEADS, generator=generator)
    bias = -torch.rand(rows, length, KV_HEADS, generator=generator) * 3
    return bias.masked_fill(noise > 0.7, -1e4).masked_fill(noise < -0.7, 0.0)


def attend(q, k, v, masks, key_bias=None):
    module = torch.nn.Module()
    module.key_bias = key_bias
    out, weights = packed_attention(module, q, k, v, None, scaling=SCALE, masks=masks)
    assert weights is None
    return out.transpose(1, 2)


def by_hand(q, k, v, document, window, key_bias):
    """One query, head and key at a time."""
    out = torch.zeros_like(q)
    rows, heads, length, _ = q.shape
    for b in range(rows):
        for h in range(heads):
            g = h // (heads // KV_HEADS)
            for i in range(length):
                visible = [j for j in range(i + 1) if document[b, j] == document[b, i]]
                scores = [
                    q[b, h, i] @ k[b, g, j] * SCALE + (key_bias[b, j, g] if i - j > window else 0.0) for j in visible
                ]
                out[b, h, i] = torch.softmax(torch.stack(scores), 0) @ v[b, g, visible]
    return out


def close(a, b, tolerance=2e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("window", [0, 3, 100])
def test_the_dense_form_is_the_definition(window):
    q, k, v = tensors(21)
    document = documents([(0, 12), (1, 6), (-1, 3)], [(0, 21)])
    bias = biases(21)
    close(attend(q, k, v, PackingMasks.build(document, window), bias), by_hand(q, k, v, document, window, bias))


def test_no_bias_is_plain_causal_attention():
    q, k, v = tensors(30, rows=1)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    masks = PackingMasks.build(documents([(0, 30)]), 4)
    close(attend(q, k, v, masks), plain)
    close(attend(q, k, v, masks, torch.zeros(1, 30, KV_HEADS)), plain)


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_packed_document_is_what_it_is_alone(with_bias):
    q, k, v = tensors(40)
    document = documents([(0, 9), (1, 20), (2, 11)], [(0, 25), (1, 15)])
    bias = biases(40) if with_bias else None
    together = attend(q, k, v, PackingMasks.build(document, 5), bias)
    for row, start, end in ((0, 0, 9), (0, 9, 29), (0, 29, 40), (1, 0, 25), (1, 25, 40)):
        part = [t[row : row + 1, :, start:end] for t in (q, k, v)]
        own = bias[row : row + 1, start:end] if with_bias else None
        alone = attend(*part, PackingMasks.build(documents([(0, end - start)]), 5), own)
        close(together[row : row + 1, :, start:end], alone)


def blocked(document, window):
    """`PackingMasks` as it is built on CUDA, block masks and all."""
    rows, length = document.shape

    def mask(rule):
        def visible(b, h, q, k):
            return (document[b, q] == document[b, k]) & rule(q, k)

        return create_block_mask(visible, rows, None, length, length, str(document.device))

    return PackingMasks(
        document,
        window,
        mask(lambda q, k: q >= k),
        near=mask(lambda q, k: (q >= k) & (q - k <= window)),
        far=mask(lambda q, k: q - k > window),
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [0, 16, 300])
def test_the_two_part_form_is_the_dense_one(monkeypatch, window):
    monkeypatch.setattr(attention, "_flex", flex_attention)
    q, k, v = tensors(256)
    document = documents([(0, 70), (1, 150), (-1, 36)], [(0, 256)])
    bias = biases(256)
    dense = PackingMasks.build(document, window)
    assert dense.full is None
    close(attend(q, k, v, blocked(document, window), bias), attend(q, k, v, dense, bias))
    close(attend(q, k, v, blocked(document, window)), attend(q, k, v, dense))


def differentiable_flex(q, k, v, *, block_mask, scale, enable_gqa, return_aux):
    """FlexAttention written out: the library's own has no backward pass on the CPU."""
    assert enable_gqa
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
    rows, _, length, _ = q.shape
    row, place = torch.arange(rows)[:, None, None, None], torch.arange(length)
    visible = block_mask.mask_mod(row, 0, place[:, None], place)
    empty = ~visible.any(-1, keepdim=True)
    scores = (q @ k.transpose(2, 3) * scale).masked_fill(~visible & ~empty, float("-inf"))
    lse = scores.logsumexp(-1).masked_fill(empty[..., 0], float("-inf"))
    return (scores.softmax(-1) @ v).masked_fill(empty, 0.0), SimpleNamespace(lse=lse)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_both_forms_have_the_same_gradients(monkeypatch, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cpu":
        monkeypatch.setattr(attention, "_flex", differentiable_flex)
    document = documents([(0, 70), (1, 150), (-1, 36)], [(0, 256)]).to(device)
    weight = torch.randn(2, HEADS, 256, DIM, generator=torch.Generator().manual_seed(5)).to(device)
    sparse = PackingMasks.build(document, 16) if device == "cuda" else blocked(document, 16)
    found = []
    for masks in (sparse, PackingMasks(document, 16)):
        inputs = [t.requires_grad_() for t in (*tensors(256, device=device), biases(256).clamp_min(-20).to(device))]
        out = attend(*inputs[:3], masks, inputs[3])
        (out * weight).sum().backward()
        found.append([out.detach(), *(t.grad for t in inputs)])
    for sparse_one, dense_one in zip(*found, strict=True):
        assert dense_one.abs().max() > 0.1
        close(sparse_one, dense_one, 2e-2 if device == "cuda" else 1e-4)  # TF32 products on CUDA


def test_what_it_does_not_compute_is_refused():
    q, k, v = tensors(8, rows=1)
    masks = PackingMasks.build(documents([(0, 8)]))
    packed_attention(torch.nn.Module(), q, k, v, None, masks=masks, dropout=0.0, sliding_window=None)
    for arguments in ({"softcap": 30.0}, {"sliding_window": 4}, {"s_aux": torch.zeros(HEADS)}, {"dropout": 0.1}):
        with pytest.raises(ModelError, match=next(iter(arguments))):
            packed_attention(torch.nn.Module(), q, k, v, None, masks=masks, **arguments)
