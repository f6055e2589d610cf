"""Kernels that attend over the rows of a cache by their addresses; on the CPU with TRITON_INTERPRET=1."""

import pytest
import tiny
import torch
from interpreted import CUDA, DEVICE, MARKS
from recorded_steps import DirectCalls
from reference_rules.dmc import DMC

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch import row_kernels
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.engines.torch.row_attention import RowAttention
from hyperscale.engines.torch.static_step import StaticMode

pytestmark = MARKS
no_bfloat16 = pytest.mark.skipif(not CUDA, reason="triton's interpreter multiplies bfloat16 as if it were integers")


def rows(lens, size, dim, dtype, generator):
    """Rows with stale numbers behind their lengths, at addresses of their own; the second is nobody's."""
    keys, values = (torch.randn(len(lens), size, dim, generator=generator).to(DEVICE, dtype) for _ in range(2))
    bias = torch.full((len(lens), size), float("-inf"), device=DEVICE, dtype=dtype)
    starts = [[part[row].data_ptr() for row in range(len(lens))] for part in (keys, values, bias)]
    addresses = torch.tensor(starts, device=DEVICE)
    addresses[:, 1] = 0
    return keys, values, bias, addresses


@pytest.mark.parametrize(
    ("dtype", "dim", "group"),
    [
        (torch.float32, 16, 3),
        (torch.float16, 128, 1),
        pytest.param(torch.bfloat16, 64, 6, marks=no_bfloat16),
    ],
)
def test_attention_over_rows(dtype, dim, group):
    generator = torch.Generator().manual_seed(dim)
    lengths = [0, 5, 1, 63, 128, 300, 1024]  # before the new entry
    lens = torch.tensor(lengths, device=DEVICE)
    size = 1056
    keys, values, bias, addresses = rows(lengths, size, dim, dtype, generator)
    slots = torch.tensor([0, 5, 1, 7, 128, 300, 1024], device=DEVICE)  # the row of 63 overwrites
    new = [torch.randn(len(lengths), dim, generator=generator).to(DEVICE, dtype) for _ in range(2)]
    before = keys.clone()
    row_kernels.write(*new, slots, lens, addresses)
    assert lens.tolist() == [1, 6, 2, 63, 129, 301, 1025]
    for row, slot in enumerate(slots.tolist()):
        if row == 1:
            assert torch.equal(keys[row], before[row])
            continue
        assert torch.equal(keys[row, slot], new[0][row])
        assert torch.equal(values[row, slot], new[1][row])
        assert bias[row].isfinite().nonzero()[:, 0].tolist() == [slot]
        before[row, slot] = new[0][row]
    assert torch.equal(keys, before)  # nothing else was written

    queries = torch.randn(len(lengths), group, dim, generator=generator).to(DEVICE, dtype)
    live = torch.arange(size, device=DEVICE) < lens[:, None]
    live[1] = False
    chosen = (torch.rand(len(lengths), group, size, generator=generator) < 0.2).to(DEVICE)
    chosen[:, :, 0] = True
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for selected in (None, chosen):
        seen = live[:, None] if selected is None else live[:, None] & selected
        scores = queries.float() @ keys.float().transpose(1, 2) * 0.3
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num()
        out, found = row_kernels.attend(queries, lens, addresses, 0.3, width=size, selected=selected, with_weights=True)
        torch.testing.assert_close(found, weights, atol=tolerance, rtol=0)
        torch.testing.assert_close(out.float(), weights @ values.float(), atol=tolerance, rtol=0)
        assert not found[1].any()
        assert not out[1].any()
        again, nothing = row_kernels.attend(queries, lens, addresses, 0.3, width=size, selected=selected)
        assert nothing is None
        assert torch.equal(again, out)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["dms", "tova", "quest", "snapkv"])
def test_a_run_on_the_kernels(name, monkeypatch):
    """Rows grow, move, are pruned and leave: tokens and costs are those of the slabs."""
    if not CUDA:  # the interpreter takes a while for each program: two parts a row
        monkeypatch.setattr(row_kernels, "_PROGRAMS", 64)
    model = tiny.with_gates(tiny.model(heads=4, kv_heads=2, seed=2), window=8)
    model = DMC.prepare(model, 1).to(DEVICE)
    cr = {"vanilla": 1, "dmc": 2}.get(name, 4)
    method = methods.create(name, cr=cr, **({"dense_layers": 1} if name == "quest" else {}))
    made = [Request(f"p{p}", c, tuple(range(1, 4 + 27 * p)), 10 + 9 * c) for p in range(2) for c in range(2)]
    found = []
    for static in (None, StaticMode(DirectCalls, RowAttention)):
        engine = TorchEngine(model, tiny.Characters(65), method, batch_size=3, device=DEVICE, cuda_graphs=False)
        engine.static = static
        chains = engine.generate(made, Sampling(temperature=0.0))
        found.append({(c.problem, c.chain): (c.token_ids, c.trace.kv_reads, c.trace.peak_kv) for c in chains})
    assert found[0] == found[1]
    assert len(found[0]) == len(made)
