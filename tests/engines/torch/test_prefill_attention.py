"""Attention within a prompt: torch's kernel in the place of blocks of queries, and the attention that keys received."""

import pytest
import torch

from hyperscale.engines.torch.forward_pass import _runs_flash, dense_attention, sparse_attention
from hyperscale.methods.core import prefill_view
from hyperscale.methods.core.prefill_view import PrefillView

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def drawn(heads, length, device, dtype):
    generator = torch.Generator().manual_seed(heads)
    return torch.randn(1, heads, length, 64, generator=generator).to(device, dtype)


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [("cpu", torch.float32, 1e-5), pytest.param("cuda", torch.bfloat16, 2e-2, marks=GPU)],
)
@pytest.mark.parametrize("length", [1, 300, 700])
def test_the_kernel_attends_as_blocks_of_queries_do(device, dtype, tolerance, length):
    queries, keys, values = (drawn(heads, length, device, dtype) for heads in (9, 3, 3))
    # The kernel is taken in half precision on a GPU, and nowhere else.
    assert _runs_flash(queries, keys, values) is (device == "cuda")
    assert not _runs_flash(queries.float(), keys.float(), values.float())
    found = dense_attention(queries, keys, values, 0.3)[0]
    wanted = sparse_attention(queries[0].float(), keys[0].float(), values[0].float(), None, 0.3)
    assert (found.float() - wanted).abs().max() < tolerance


@pytest.mark.parametrize("weights", [1, 9 * 700 * 300, 2**25])
def test_what_keys_received_does_not_depend_on_how_many_queries_are_summed_at_once(weights, monkeypatch):
    monkeypatch.setattr(prefill_view, "_WEIGHTS", weights)
    queries, keys = drawn(9, 700, "cpu", torch.float32)[0], drawn(3, 700, "cpu", torch.float32)[0]
    view = PrefillView(queries, keys, keys, 0.3, 8)
    assert torch.allclose(view.received(), view.weights(0).sum((1, 2)), atol=1e-4)
